"""The types of the blocking client. Generated from the calls of `Client` by `make docs`."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from google.protobuf.timestamp_pb2 import Timestamp
from pathlib import Path
from towline.v1 import agent_admin_service_pb2, audit_service_pb2, auth_service_pb2, plugin_service_pb2, run_service_pb2, schedule_service_pb2, secret_service_pb2, user_service_pb2, workflow_service_pb2
from towline.v1.agent_pb2 import Agent
from towline.v1.artifact_pb2 import Artifact
from towline.v1.explanation_pb2 import Explanation
from towline.v1.plugin_pb2 import Plugin
from towline.v1.run_pb2 import Event, LogLine, LogsEnd, Run, Step
from towline.v1.run_service_pb2 import DownloadArtifactResponse, ListArtifactsResponse
from towline.v1.sandbox_pb2 import Sandbox
from towline.v1.schedule_pb2 import Schedule
from towline.v1.secret_pb2 import Secret
from towline.v1.user_pb2 import User
from towline.v1.workflow_pb2 import Dag, Workflow, WorkflowVersion
from towline_sdk.documents import JsonInput, Policies, WorkflowDocument
from towline_sdk.pages import Page
from towline_sdk.run_calls import RunOptions
from towline_sdk.schedule_calls import ScheduleSettings
from types import TracebackType
from typing import Self

class AgentCalls:
    """Agents, for admins."""

    def list(self, page: Page=...) -> agent_admin_service_pb2.ListAgentsResponse:
        """Returns a page of agents by name."""

    def get(self, agent: str) -> Agent:
        """Returns an agent, by id or name."""

    def drain(self, agent: str) -> Agent:
        """Offers an agent nothing any more; what it runs goes on."""

    def undrain(self, agent: str) -> Agent:
        """Offers steps to a drained agent again."""

    def disable(self, agent: str) -> Agent:
        """Refuses an agent's credential, and takes from it what it holds."""

    def enable(self, agent: str) -> Agent:
        """Accepts a disabled agent's credential again."""

    def rotate(self, agent: str) -> Agent:
        """Gives an agent a new credential with its next Sync."""

    def tokens(self) -> agent_admin_service_pb2.ListEnrollmentTokensResponse:
        """Lists the enrollment tokens that may still be used."""

    def revoke_token(self, token_id: str) -> None:
        """Makes an enrollment token useless."""

    def cap(self, agent: str, level: Sandbox.Level) -> Agent:
        """Believes an agent no stronger sandbox than this; LEVEL_UNSPECIFIED takes that back."""

    def create_token(self, uses: int=..., lifetime_seconds: int | None=...) -> agent_admin_service_pb2.CreateEnrollmentTokenResponse:
        """Makes an enrollment token, which is shown only here."""

class ArtifactCalls:
    """Files that attempts made; `attempt` 0 means the newest one of a step."""

    def list(self, run_id: str, node_id: str=..., attempt: int=...) -> ListArtifactsResponse:
        """Returns all artifacts of a run, or of one of its steps."""

    def read(self, run_id: str, node_id: str, name: str, attempt: int=..., offset: int=...) -> Iterator[DownloadArtifactResponse]:
        """Yields what an artifact is, then its bytes from `offset` on; ends with an error if the connection does."""

    def download(self, run_id: str, node_id: str, name: str, target: Path, attempt: int=...) -> Artifact:
        """Puts an artifact under `target` once all its bytes are there and have its digest; returns what it is."""

class AuditCalls:
    """The log of calls that changed something, or tried to."""

    def list(self, user: str=..., method: str=..., *, start_time: Timestamp | None=..., end_time: Timestamp | None=..., page: Page=...) -> audit_service_pb2.ListAuditEventsResponse:
        """Returns a page of events, newest first: of a user, of a method, between two times, where these are given."""

class AuthCalls:
    """Identity of people."""

    def register(self, email: str, password: str, name: str) -> User:
        """Registers a user."""

    def login(self, email: str, password: str) -> auth_service_pb2.LoginResponse:
        """Exchanges email and password for a token."""

    def logout(self) -> None:
        """Ends the sign-in that the client's token belongs to."""

    def change_password(self, current: str, new: str) -> auth_service_pb2.ChangePasswordResponse:
        """Changes the caller's password, ends all its sign-ins and begins a new one."""

    def create_api_key(self, name: str, scopes: Sequence[str], lifetime_seconds: int | None=...) -> auth_service_pb2.CreateApiKeyResponse:
        """Makes a key with which a machine acts for the caller; it is shown only here."""

    def api_keys(self, page: Page=...) -> auth_service_pb2.ListApiKeysResponse:
        """Returns a page of the caller's API keys, newest first, never the keys themselves."""

    def revoke_api_key(self, key_id: str) -> None:
        """Makes one of the caller's API keys useless."""

    def me(self) -> User:
        """Returns the user whose token the client carries."""

class PluginCalls:
    """The registry of plugins."""

    def push(self, bundle: bytes) -> Plugin:
        """Stores a bundle as a version of its plugin; the same bytes again change nothing."""

    def list(self, page: Page=...) -> plugin_service_pb2.ListPluginsResponse:
        """Returns a page of built-ins and plugins by name."""

    def get(self, plugin_id: str) -> Plugin:
        """Returns a plugin, by id or name, with its versions."""

class RunCalls:
    """Runs, their steps, history and logs."""

    def start(self, workflow_id: str, run_input: JsonInput=..., options: RunOptions | None=...) -> 'StartedRun':
        """Starts a run exactly once, however often the call has to be sent: `await` it, or go on with `.watch()`."""

    def list(self, workflow_id: str=..., state: Run.State=..., page: Page=...) -> run_service_pb2.ListRunsResponse:
        """Returns a page of runs, newest first."""

    def get(self, run_id: str) -> Run:
        """Returns a run."""

    def pause(self, run_id: str, *, freeze: bool=...) -> Run:
        """Stops handing out steps of a run; with `freeze` what runs stands still until it is resumed."""

    def resume(self, run_id: str) -> Run:
        """Hands out the steps of a paused run again."""

    def cancel(self, run_id: str) -> Run:
        """Cancels a run; steps that run are being stopped when this returns."""

    def retry(self, run_id: str) -> Run:
        """Starts a run that did not succeed over from its failed steps."""

    def delete(self, run_id: str) -> None:
        """Deletes a run that has ended, for good."""

    def steps(self, run_id: str) -> run_service_pb2.ListStepsResponse:
        """Returns all steps of a run in the order of the DAG's nodes."""

    def step(self, run_id: str, node_id: str) -> Step:
        """Returns a step with all its attempts."""

    def explain(self, run_id: str, node_id: str) -> Explanation:
        """Returns why a step is not running."""

    def result(self, run_id: str) -> Run:
        """Returns a run once it has ended, however it did."""

    def watch(self, run_id: str) -> Iterator[Event]:
        """Yields the history of a run from its start, each event once, up to the one that ends the run."""

    def logs(self, run_id: str, node_id: str=..., *, follow: bool=..., on_end: Callable[[LogsEnd], None]=...) -> Iterator[LogLine]:
        """Yields log lines from the start, each once; with `follow` until the run has ended.

        `on_end` is told behind the last one whether the logs are complete.
        """

class StartedRun:
    """A run from its start on. It is sent once, when it is first awaited or followed; then `id` and `run` are known."""

    @property
    def run(self) -> Run:
        """The run as it was started; raises RuntimeError before that."""

    @property
    def id(self) -> str:
        """The id of the run."""

    def result(self) -> Run:
        """Returns the run once it has ended, however it did."""

    def watch(self) -> Iterator[Event]:
        """Yields the history of the run, as `RunCalls.watch`."""

    def logs(self, node_id: str=..., *, follow: bool=...) -> Iterator[LogLine]:
        """Yields the log lines of the run, as `RunCalls.logs`; until it has ended, unless told otherwise."""

class ScheduleCalls:
    """Schedules, and runs of them out of turn."""

    def create(self, name: str, workflow_id: str, settings: ScheduleSettings, *, paused: bool=...) -> Schedule:
        """Creates a schedule."""

    def list(self, page: Page=...) -> schedule_service_pb2.ListSchedulesResponse:
        """Returns a page of schedules, newest first."""

    def get(self, schedule_id: str) -> Schedule:
        """Returns a schedule with its times, what became of the last ones, and why nothing runs."""

    def update(self, schedule_id: str, settings: ScheduleSettings, *, name: str | None=..., etag: str=...) -> Schedule:
        """Changes what is given; with an `etag` only the schedule that has it."""

    def delete(self, schedule_id: str, *, etag: str=...) -> None:
        """Deletes a schedule; its runs stay."""

    def pause(self, schedule_id: str, note: str=...) -> Schedule:
        """Lets no time come until it is resumed."""

    def resume(self, schedule_id: str) -> Schedule:
        """Goes on with the next time behind now."""

    def trigger(self, schedule_id: str, request_id: str=...) -> Run:
        """Starts a run now, exactly once however often the call has to be sent."""

    def backfill(self, schedule_id: str, start_time: datetime, end_time: datetime) -> schedule_service_pb2.BackfillScheduleResponse:
        """Starts a run for each time of a span in the past that has none."""

    def preview(self, settings: ScheduleSettings, count: int=...) -> schedule_service_pb2.PreviewScheduleResponse:
        """Returns the next times of an expression or an interval, between its start and end time."""

class SecretCalls:
    """Secrets and their grants; a secret is named by its id, or by the name of one of the caller's."""

    def create(self, name: str, value: str) -> Secret:
        """Creates a secret; raises ConflictError if there is one of the name."""

    def put(self, name: str, value: str) -> Secret:
        """Gives a secret a new value, or creates it."""

    def list(self, page_size: int=..., page_token: str=...) -> secret_service_pb2.ListSecretsResponse:
        """Returns a page of what is known of secrets, by name."""

    def get(self, secret: str) -> Secret:
        """Returns what is known of a secret."""

    def delete(self, secret: str) -> None:
        """Deletes a secret with its grants."""

    def grant(self, secret: str, plugin: str) -> Secret:
        """Lets a plugin be given a secret."""

    def revoke(self, secret: str, plugin: str) -> Secret:
        """Takes a grant back."""

    def rotate(self) -> secret_service_pb2.RotateSecretsResponse:
        """Has all secrets encrypted with the first key of the control plane, for admins."""

class UserCalls:
    """Users, each named by its id or email."""

    def list(self, page: Page=...) -> user_service_pb2.ListUsersResponse:
        """Returns a page of users by email."""

    def get(self, user: str) -> User:
        """Returns a user."""

    def set_role(self, user: str, role: User.Role) -> User:
        """Gives a user another role."""

    def set_password(self, user: str, password: str) -> User:
        """Gives a user a new password and ends its sign-ins."""

    def disable(self, user: str) -> User:
        """Refuses a user with all its tokens and API keys."""

    def enable(self, user: str) -> User:
        """Lets a disabled user sign in again."""

    def sign_out(self, user: str, *, api_keys: bool=...) -> User:
        """Ends all sign-ins of a user, and revokes its API keys if asked to."""

class WorkflowCalls:
    """Workflows and their versions."""

    def create(self, document: WorkflowDocument) -> Workflow:
        """Creates a workflow with its first version."""

    def list(self, page: Page=...) -> workflow_service_pb2.ListWorkflowsResponse:
        """Returns a page of workflows, newest first."""

    def get(self, workflow_id: str) -> Workflow:
        """Returns a workflow with its DAG."""

    def update(self, workflow_id: str, *, name: str | None=..., description: str | None=..., dag: Dag | None=..., policies: Policies=...) -> Workflow:
        """Changes what is given; a DAG or a policy makes a new version."""

    def delete(self, workflow_id: str) -> None:
        """Deletes a workflow; its runs stay."""

    def create_version(self, workflow_id: str, dag: Dag, policies: Policies=...) -> WorkflowVersion:
        """Creates the next version of a workflow."""

    def versions(self, workflow_id: str, page: Page=...) -> workflow_service_pb2.ListWorkflowVersionsResponse:
        """Returns a page of the versions of a workflow, newest first."""

    def pin(self, workflow_id: str, version_id: str) -> Workflow:
        """Makes one version the one that runs start with."""

class BlockingClient:
    """A connection to one control plane, as `Client`; use it as `with BlockingClient(address, token) as client`."""

    agents: AgentCalls
    artifacts: ArtifactCalls
    audit: AuditCalls
    auth: AuthCalls
    plugins: PluginCalls
    runs: RunCalls
    schedules: ScheduleCalls
    secrets: SecretCalls
    users: UserCalls
    workflows: WorkflowCalls

    def __init__(
        self, address: str, token: str = ..., *, ca_file: Path | None = ..., deadline_seconds: float = ...
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None:
        """Ends the connection, every call on it and the thread. Idempotent."""
