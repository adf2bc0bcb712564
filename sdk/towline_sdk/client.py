"""The API of a control plane, call by call: `Client(address, token).runs.start(…)`.

Takes and returns the messages of the contract; there is no second model. Every method raises a `TowlineError`.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value

from towline.v1 import (
    agent_admin_service_pb2,
    auth_service_pb2,
    plugin_service_pb2,
    run_service_pb2,
    workflow_service_pb2,
)
from towline.v1.agent_pb2 import Agent
from towline.v1.explanation_pb2 import Explanation
from towline.v1.plugin_pb2 import Plugin
from towline.v1.run_pb2 import Event, LogLine, LogsEnd, Run, Step
from towline.v1.sandbox_pb2 import Sandbox
from towline.v1.user_pb2 import User
from towline.v1.workflow_pb2 import Dag, Workflow, WorkflowVersion
from towline_sdk.artifact_calls import ArtifactCalls
from towline_sdk.documents import NO_POLICIES, Policies
from towline_sdk.secret_calls import SecretCalls
from towline_sdk.transport import Transport

DEADLINE_SECONDS: Final = 15.0
CHUNK_BYTES: Final = 256 << 10


class Client:
    """A connection to one control plane; use it as `async with Client(address, token) as client`."""

    def __init__(self, address: str, token: str = "", *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._transport = Transport(address, token, deadline_seconds)
        self.auth = AuthCalls(self._transport)
        self.workflows = WorkflowCalls(self._transport)
        self.runs = RunCalls(self._transport)
        self.artifacts = ArtifactCalls(self._transport)
        self.plugins = PluginCalls(self._transport)
        self.agents = AgentCalls(self._transport)
        self.secrets = SecretCalls(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and every call on it."""
        await self._transport.close()


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: 0 items means the server's default."""

    size: int = 0
    token: str = ""


FIRST_PAGE: Final = Page()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is started, beside its input; `request_id` makes repeated starts one run."""

    version_id: str = ""
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class AuthCalls:
    """Identity of people."""

    _transport: Transport

    async def register(self, email: str, password: str, name: str) -> User:
        """Registers a user."""
        request = auth_service_pb2.RegisterRequest(email=email, password=password, name=name)
        return (await self._transport.call(request, auth_service_pb2.RegisterResponse)).user

    async def login(self, email: str, password: str) -> auth_service_pb2.LoginResponse:
        """Exchanges email and password for a token."""
        request = auth_service_pb2.LoginRequest(email=email, password=password)
        return await self._transport.call(request, auth_service_pb2.LoginResponse)

    async def me(self) -> User:
        """Returns the user whose token the client carries."""
        return (await self._transport.call(auth_service_pb2.GetMeRequest(), auth_service_pb2.GetMeResponse)).user


@dataclass(frozen=True, slots=True)
class WorkflowCalls:
    """Workflows and their versions."""

    _transport: Transport

    async def create(self, name: str, description: str, dag: Dag, policies: Policies = NO_POLICIES) -> Workflow:
        """Creates a workflow with its first version."""
        request = workflow_service_pb2.CreateWorkflowRequest(
            name=name, description=description, dag=dag, **policies.given()
        )
        return (await self._transport.call(request, workflow_service_pb2.CreateWorkflowResponse)).workflow

    async def list(self, page: Page = FIRST_PAGE) -> workflow_service_pb2.ListWorkflowsResponse:
        """Returns a page of workflows, newest first."""
        request = workflow_service_pb2.ListWorkflowsRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, workflow_service_pb2.ListWorkflowsResponse)

    async def get(self, workflow_id: str) -> Workflow:
        """Returns a workflow with its DAG."""
        request = workflow_service_pb2.GetWorkflowRequest(workflow_id=workflow_id)
        return (await self._transport.call(request, workflow_service_pb2.GetWorkflowResponse)).workflow

    async def update(
        self,
        workflow_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        dag: Dag | None = None,
        policies: Policies = NO_POLICIES,
    ) -> Workflow:
        """Changes what is given; a DAG or a policy makes a new version."""
        request = workflow_service_pb2.UpdateWorkflowRequest(
            workflow_id=workflow_id, name=name, description=description, dag=dag, **policies.given()
        )
        return (await self._transport.call(request, workflow_service_pb2.UpdateWorkflowResponse)).workflow

    async def delete(self, workflow_id: str) -> None:
        """Deletes a workflow; its runs stay."""
        request = workflow_service_pb2.DeleteWorkflowRequest(workflow_id=workflow_id)
        await self._transport.call(request, workflow_service_pb2.DeleteWorkflowResponse)

    async def create_version(self, workflow_id: str, dag: Dag, policies: Policies = NO_POLICIES) -> WorkflowVersion:
        """Creates the next version of a workflow."""
        request = workflow_service_pb2.CreateWorkflowVersionRequest(
            workflow_id=workflow_id, dag=dag, **policies.given()
        )
        return (await self._transport.call(request, workflow_service_pb2.CreateWorkflowVersionResponse)).version

    async def versions(
        self, workflow_id: str, page: Page = FIRST_PAGE
    ) -> workflow_service_pb2.ListWorkflowVersionsResponse:
        """Returns a page of the versions of a workflow, newest first."""
        request = workflow_service_pb2.ListWorkflowVersionsRequest(
            workflow_id=workflow_id, page_size=page.size, page_token=page.token
        )
        return await self._transport.call(request, workflow_service_pb2.ListWorkflowVersionsResponse)

    async def pin(self, workflow_id: str, version_id: str) -> Workflow:
        """Makes one version the one that runs start with."""
        request = workflow_service_pb2.PinWorkflowVersionRequest(workflow_id=workflow_id, version_id=version_id)
        return (await self._transport.call(request, workflow_service_pb2.PinWorkflowVersionResponse)).workflow


@dataclass(frozen=True, slots=True)
class RunCalls:
    """Runs, their steps, history and logs."""

    _transport: Transport

    async def start(self, workflow_id: str, run_input: Value, options: RunOptions | None = None) -> Run:
        """Starts a run exactly once, however often the call has to be sent."""
        options = options or RunOptions()
        request = run_service_pb2.StartRunRequest(
            workflow_id=workflow_id,
            input=run_input,
            version_id=options.version_id,
            priority=options.priority,
            labels=options.labels,
            request_id=options.request_id,
        )
        return (await self._transport.call(request, run_service_pb2.StartRunResponse)).run

    async def list(
        self, workflow_id: str = "", state: Run.State = Run.STATE_UNSPECIFIED, page: Page = FIRST_PAGE
    ) -> run_service_pb2.ListRunsResponse:
        """Returns a page of runs, newest first."""
        request = run_service_pb2.ListRunsRequest(
            workflow_id=workflow_id, state=state, page_size=page.size, page_token=page.token
        )
        return await self._transport.call(request, run_service_pb2.ListRunsResponse)

    async def get(self, run_id: str) -> Run:
        """Returns a run."""
        request = run_service_pb2.GetRunRequest(run_id=run_id)
        return (await self._transport.call(request, run_service_pb2.GetRunResponse)).run

    async def pause(self, run_id: str, *, freeze: bool = False) -> Run:
        """Stops handing out steps of a run; with `freeze` what runs stands still until it is resumed."""
        mode = run_service_pb2.PauseRunRequest.FREEZE if freeze else run_service_pb2.PauseRunRequest.DRAIN
        request = run_service_pb2.PauseRunRequest(run_id=run_id, mode=mode)
        return (await self._transport.call(request, run_service_pb2.PauseRunResponse)).run

    async def resume(self, run_id: str) -> Run:
        """Hands out the steps of a paused run again."""
        request = run_service_pb2.ResumeRunRequest(run_id=run_id)
        return (await self._transport.call(request, run_service_pb2.ResumeRunResponse)).run

    async def cancel(self, run_id: str) -> Run:
        """Cancels a run; steps that run are being stopped when this returns."""
        request = run_service_pb2.CancelRunRequest(run_id=run_id)
        return (await self._transport.call(request, run_service_pb2.CancelRunResponse)).run

    async def retry(self, run_id: str) -> Run:
        """Starts a run that did not succeed over from its failed steps."""
        request = run_service_pb2.RetryRunRequest(run_id=run_id)
        return (await self._transport.call(request, run_service_pb2.RetryRunResponse)).run

    async def delete(self, run_id: str) -> None:
        """Deletes a run that has ended, for good."""
        await self._transport.call(run_service_pb2.DeleteRunRequest(run_id=run_id), run_service_pb2.DeleteRunResponse)

    async def steps(self, run_id: str) -> run_service_pb2.ListStepsResponse:
        """Returns all steps of a run in the order of the DAG's nodes."""
        whole = run_service_pb2.ListStepsResponse()
        request = run_service_pb2.ListStepsRequest(run_id=run_id)
        while True:
            page = await self._transport.call(request, run_service_pb2.ListStepsResponse)
            whole.steps.extend(page.steps)
            if not page.next_page_token:
                return whole
            request.page_token = page.next_page_token

    async def step(self, run_id: str, node_id: str) -> Step:
        """Returns a step with all its attempts."""
        request = run_service_pb2.GetStepRequest(run_id=run_id, node_id=node_id)
        return (await self._transport.call(request, run_service_pb2.GetStepResponse)).step

    async def explain(self, run_id: str, node_id: str) -> Explanation:
        """Returns why a step is not running."""
        request = run_service_pb2.ExplainStepRequest(run_id=run_id, node_id=node_id)
        return (await self._transport.call(request, run_service_pb2.ExplainStepResponse)).explanation

    async def watch(self, run_id: str) -> AsyncIterator[Event]:
        """Yields the history of a run from its start, each event once, up to the one that ends the run."""

        def request(cursor: str) -> run_service_pb2.WatchRunRequest:
            return run_service_pb2.WatchRunRequest(run_id=run_id, cursor=cursor)

        async for answer in self._transport.follow(request, run_service_pb2.WatchRunResponse):
            yield answer.event

    async def logs(
        self,
        run_id: str,
        node_id: str = "",
        *,
        follow: bool = False,
        on_end: Callable[[LogsEnd], None] = lambda end: None,
    ) -> AsyncIterator[LogLine]:
        """Yields log lines from the start, each once; with `follow` until the run has ended.

        `on_end` is told behind the last one whether the logs are complete.
        """

        def request(cursor: str) -> run_service_pb2.TailLogsRequest:
            return run_service_pb2.TailLogsRequest(run_id=run_id, node_id=node_id, follow=follow, cursor=cursor)

        async for answer in self._transport.follow(request, run_service_pb2.TailLogsResponse):
            if answer.HasField("end"):
                on_end(answer.end)
            for each in answer.batch or (answer,):
                if each.HasField("line"):
                    yield each.line


@dataclass(frozen=True, slots=True)
class PluginCalls:
    """The registry of plugins."""

    _transport: Transport

    async def push(self, bundle: bytes) -> Plugin:
        """Stores a bundle as a version of its plugin; the same bytes again change nothing."""
        starts = range(0, len(bundle), CHUNK_BYTES) or range(1)
        chunks = [plugin_service_pb2.PushPluginRequest(chunk=bundle[at : at + CHUNK_BYTES]) for at in starts]
        return (await self._transport.upload(chunks, plugin_service_pb2.PushPluginResponse)).plugin

    async def list(self, page: Page = FIRST_PAGE) -> plugin_service_pb2.ListPluginsResponse:
        """Returns a page of built-ins and plugins by name."""
        request = plugin_service_pb2.ListPluginsRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, plugin_service_pb2.ListPluginsResponse)

    async def get(self, plugin_id: str) -> Plugin:
        """Returns a plugin, by id or name, with its versions."""
        request = plugin_service_pb2.GetPluginRequest(plugin_id=plugin_id)
        return (await self._transport.call(request, plugin_service_pb2.GetPluginResponse)).plugin


@dataclass(frozen=True, slots=True)
class AgentCalls:
    """Agents, for admins."""

    _transport: Transport

    async def list(self, page: Page = FIRST_PAGE) -> agent_admin_service_pb2.ListAgentsResponse:
        """Returns a page of agents by name."""
        request = agent_admin_service_pb2.ListAgentsRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, agent_admin_service_pb2.ListAgentsResponse)

    async def get(self, agent: str) -> Agent:
        """Returns an agent, by id or name."""
        request = agent_admin_service_pb2.GetAgentRequest(agent_id=agent)
        return (await self._transport.call(request, agent_admin_service_pb2.GetAgentResponse)).agent

    async def drain(self, agent: str) -> Agent:
        """Offers an agent nothing any more; what it runs goes on."""
        request = agent_admin_service_pb2.DrainAgentRequest(agent_id=agent)
        return (await self._transport.call(request, agent_admin_service_pb2.DrainAgentResponse)).agent

    async def undrain(self, agent: str) -> Agent:
        """Offers steps to a drained agent again."""
        request = agent_admin_service_pb2.UndrainAgentRequest(agent_id=agent)
        return (await self._transport.call(request, agent_admin_service_pb2.UndrainAgentResponse)).agent

    async def disable(self, agent: str) -> Agent:
        """Refuses an agent's credential, and takes from it what it holds."""
        request = agent_admin_service_pb2.DisableAgentRequest(agent_id=agent)
        return (await self._transport.call(request, agent_admin_service_pb2.DisableAgentResponse)).agent

    async def enable(self, agent: str) -> Agent:
        """Accepts a disabled agent's credential again."""
        request = agent_admin_service_pb2.EnableAgentRequest(agent_id=agent)
        return (await self._transport.call(request, agent_admin_service_pb2.EnableAgentResponse)).agent

    async def rotate(self, agent: str) -> Agent:
        """Gives an agent a new credential with its next Sync."""
        request = agent_admin_service_pb2.RotateAgentRequest(agent_id=agent)
        return (await self._transport.call(request, agent_admin_service_pb2.RotateAgentResponse)).agent

    async def tokens(self) -> agent_admin_service_pb2.ListEnrollmentTokensResponse:
        """Lists the enrollment tokens that may still be used."""
        request = agent_admin_service_pb2.ListEnrollmentTokensRequest()
        return await self._transport.call(request, agent_admin_service_pb2.ListEnrollmentTokensResponse)

    async def revoke_token(self, token_id: str) -> None:
        """Makes an enrollment token useless."""
        request = agent_admin_service_pb2.RevokeEnrollmentTokenRequest(token_id=token_id)
        await self._transport.call(request, agent_admin_service_pb2.RevokeEnrollmentTokenResponse)

    async def cap(self, agent: str, level: Sandbox.Level) -> Agent:
        """Believes an agent no stronger sandbox than this; LEVEL_UNSPECIFIED takes that back."""
        request = agent_admin_service_pb2.CapAgentRequest(agent_id=agent, level=level)
        return (await self._transport.call(request, agent_admin_service_pb2.CapAgentResponse)).agent

    async def create_token(
        self, uses: int = 1, lifetime_seconds: int | None = None
    ) -> agent_admin_service_pb2.CreateEnrollmentTokenResponse:
        """Makes an enrollment token, which is shown only here."""
        lifetime = None if lifetime_seconds is None else Duration(seconds=lifetime_seconds)
        request = agent_admin_service_pb2.CreateEnrollmentTokenRequest(uses=uses, lifetime=lifetime)
        return await self._transport.call(request, agent_admin_service_pb2.CreateEnrollmentTokenResponse)
