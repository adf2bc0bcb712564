"""What the fake control plane answers: one method for each call that it knows, named like it.

Rules of documents are those of the real one; identity is one token for each user, and passwords are kept as they are.
"""

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from towline.v1 import auth_service_pb2, run_service_pb2, workflow_service_pb2
from towline.v1.run_pb2 import Event, LogsEnd, Run
from towline.v1.user_pb2 import User
from towline.v1.workflow_pb2 import Workflow, WorkflowVersion
from towline_dag.graph import Dag, read_dag
from towline_dag.nodes import Node
from towline_dag.violation import Violation
from towline_plugins.catalog import BUILTINS
from towline_sdk.testing.fake_run import ENDED, FakeRun, Plugins
from towline_sdk.validation import examine

DEFAULT_PAGE = 50
POLICIES = ("input_schema", "output", "timeout_ms", "concurrency")


class Refused(Exception):
    """A call fails with this status."""

    def __init__(self, status: str, reason: str, message: str, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.violations = status, reason, message, violations


@dataclass(slots=True)
class Account:
    """A user with its password and the tokens it is signed in with."""

    user: User
    password: str
    tokens: set[str] = field(default_factory=set[str])


class FakeServices:
    """The state of one fake control plane, and its answers. Calls come from several threads."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self.runs: dict[str, FakeRun] = {}
        self._accounts: dict[str, Account] = {}
        self._workflows: dict[str, Workflow] = {}
        self._versions: dict[str, list[WorkflowVersion]] = {}
        self._started: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._lock = threading.RLock()

    def answer(self, method: str, request: Any, token: str) -> Any:
        """Returns the answer of a method, or the answers of a stream; raises Refused."""
        known = getattr(self, method, None)
        if known is None:
            raise Refused("UNIMPLEMENTED", "UNIMPLEMENTED", f"the fake control plane does not know {method}")
        with self._lock:
            caller = None if method in ("Register", "Login") else self._caller(token)
            return known(request, caller)

    def sign_up(self, email: str, password: str, name: str) -> str:
        """Makes a user and returns a token of it."""
        with self._lock:
            made = User(id=_new_id(), email=email.lower(), name=name, role=User.USER)
            account = self._accounts[made.email] = Account(made, password)
            made.create_time.GetCurrentTime()
            return _sign_in(account)

    def _caller(self, token: str) -> Account:
        for account in self._accounts.values():
            if token and token in account.tokens:
                return account
        raise Refused("UNAUTHENTICATED", "UNAUTHENTICATED", "the credential is not valid")

    def Register(self, request: auth_service_pb2.RegisterRequest, _: None) -> Message:
        """Registers a user."""
        if request.email.lower() in self._accounts:
            raise Refused("ALREADY_EXISTS", "ALREADY_EXISTS", "a user with this email exists")
        if not 8 <= len(request.password.encode()) <= 72:
            raise _invalid(Violation("password", "must have 8 to 72 bytes"))
        self.sign_up(request.email, request.password, request.name)
        return auth_service_pb2.RegisterResponse(user=self._accounts[request.email.lower()].user)

    def Login(self, request: auth_service_pb2.LoginRequest, _: None) -> Message:
        """Signs a user in."""
        account = self._accounts.get(request.email.lower())
        if account is None or account.password != request.password:
            raise Refused("UNAUTHENTICATED", "BAD_CREDENTIALS", "email and password do not belong together")
        token = _sign_in(account)
        return auth_service_pb2.LoginResponse(access_token=token, expires_in=3600, user=account.user)

    def Logout(self, _request: auth_service_pb2.LogoutRequest, caller: Account) -> Message:
        """Signs the caller out everywhere."""
        caller.tokens.clear()
        return auth_service_pb2.LogoutResponse()

    def GetMe(self, _request: auth_service_pb2.GetMeRequest, caller: Account) -> Message:
        """Returns the caller."""
        return auth_service_pb2.GetMeResponse(user=caller.user)

    def CreateWorkflow(self, request: workflow_service_pb2.CreateWorkflowRequest, caller: Account) -> Message:
        """Creates a workflow with its first version."""
        self._check(request, request.name)
        made = Workflow(id=_new_id(), name=request.name, description=request.description, owner_id=caller.user.id)
        made.create_time.GetCurrentTime()
        self._workflows[made.id], self._versions[made.id] = made, []
        self._add_version(made, request)
        return workflow_service_pb2.CreateWorkflowResponse(workflow=self._whole(made))

    def GetWorkflow(self, request: workflow_service_pb2.GetWorkflowRequest, caller: Account) -> Message:
        """Returns a workflow."""
        found = self._workflow(request.workflow_id, caller)
        return workflow_service_pb2.GetWorkflowResponse(workflow=self._whole(found))

    def ListWorkflows(self, request: workflow_service_pb2.ListWorkflowsRequest, caller: Account) -> Message:
        """Lists workflows, newest first."""
        own = [each for each in self._workflows.values() if each.owner_id == caller.user.id]
        items, token = _page(own[::-1], request)
        return workflow_service_pb2.ListWorkflowsResponse(workflows=items, next_page_token=token)

    def UpdateWorkflow(self, request: workflow_service_pb2.UpdateWorkflowRequest, caller: Account) -> Message:
        """Changes what is given."""
        found = self._workflow(request.workflow_id, caller)
        if request.HasField("dag"):
            self._check(request, request.name or found.name)
            self._add_version(found, request)
        if request.HasField("name"):
            found.name = request.name
        if request.HasField("description"):
            found.description = request.description
        return workflow_service_pb2.UpdateWorkflowResponse(workflow=self._whole(found))

    def DeleteWorkflow(self, request: workflow_service_pb2.DeleteWorkflowRequest, caller: Account) -> Message:
        """Hides a workflow; its runs stay."""
        del self._workflows[self._workflow(request.workflow_id, caller).id]
        return workflow_service_pb2.DeleteWorkflowResponse()

    def CreateWorkflowVersion(
        self, request: workflow_service_pb2.CreateWorkflowVersionRequest, caller: Account
    ) -> Message:
        """Creates the next version."""
        found = self._workflow(request.workflow_id, caller)
        self._check(request, found.name)
        return workflow_service_pb2.CreateWorkflowVersionResponse(version=self._add_version(found, request))

    def ListWorkflowVersions(
        self, request: workflow_service_pb2.ListWorkflowVersionsRequest, caller: Account
    ) -> Message:
        """Lists versions, newest first."""
        items, token = _page(self._versions[self._workflow(request.workflow_id, caller).id][::-1], request)
        return workflow_service_pb2.ListWorkflowVersionsResponse(versions=items, next_page_token=token)

    def PinWorkflowVersion(self, request: workflow_service_pb2.PinWorkflowVersionRequest, caller: Account) -> Message:
        """Makes one version the one that runs start with."""
        found = self._workflow(request.workflow_id, caller)
        found.pinned_version_id = self._version(found, request.version_id).id
        return workflow_service_pb2.PinWorkflowVersionResponse(workflow=self._whole(found))

    def StartRun(self, request: run_service_pb2.StartRunRequest, caller: Account) -> Message:
        """Starts a run, once for each request id."""
        found = self._workflow(request.workflow_id, caller)
        key, said = (caller.user.id, request.request_id), request.SerializeToString(deterministic=True)
        if request.request_id and key in self._started:
            first, run_id = self._started[key]
            if first != said:
                message = "the idempotency key came with another request before"
                raise Refused("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED", message)
            return run_service_pb2.StartRunResponse(run=self.runs[run_id].run)
        version = self._version(found, request.version_id or found.pinned_version_id)
        run = Run(id=_new_id(), workflow_id=found.id, version_id=version.id, owner_id=caller.user.id, state=Run.PENDING)
        run.input.CopyFrom(request.input)
        run.priority = request.priority
        run.labels.update(request.labels)
        run.create_time.GetCurrentTime()
        made = self.runs[run.id] = FakeRun(run, _dag(version), self.plugins)
        self._started[key] = said, run.id
        answer = run_service_pb2.StartRunResponse(run=run)
        made.start()
        return answer

    def GetRun(self, request: run_service_pb2.GetRunRequest, caller: Account) -> Message:
        """Returns a run."""
        return run_service_pb2.GetRunResponse(run=self._run(request.run_id, caller).run)

    def ListRuns(self, request: run_service_pb2.ListRunsRequest, caller: Account) -> Message:
        """Lists runs, newest first."""
        own = [
            each.run
            for each in self.runs.values()
            if each.run.owner_id == caller.user.id
            and request.workflow_id in ("", each.run.workflow_id)
            and request.state in (Run.STATE_UNSPECIFIED, each.run.state)
        ]
        items, token = _page(own[::-1], request)
        return run_service_pb2.ListRunsResponse(runs=items, next_page_token=token)

    def PauseRun(self, request: run_service_pb2.PauseRunRequest, caller: Account) -> Message:
        """Lets no further step begin."""
        found = self._open_run(request.run_id, caller, "paused")
        found.change(Run.PAUSED, Event.RUN_PAUSED)
        return run_service_pb2.PauseRunResponse(run=found.run)

    def ResumeRun(self, request: run_service_pb2.ResumeRunRequest, caller: Account) -> Message:
        """Lets a paused run go on."""
        found = self._open_run(request.run_id, caller, "resumed")
        found.change(Run.RUNNING, Event.RUN_RESUMED)
        return run_service_pb2.ResumeRunResponse(run=found.run)

    def CancelRun(self, request: run_service_pb2.CancelRunRequest, caller: Account) -> Message:
        """Cancels a run; one that was cancelled stays so."""
        found = self._run(request.run_id, caller)
        if not found.run.cancel_requested:
            self._open_run(request.run_id, caller, "cancelled").cancel()
        return run_service_pb2.CancelRunResponse(run=found.run)

    def DeleteRun(self, request: run_service_pb2.DeleteRunRequest, caller: Account) -> Message:
        """Deletes a run that has ended."""
        found = self._run(request.run_id, caller)
        if found.run.state not in ENDED:
            raise Refused("FAILED_PRECONDITION", "INVALID_STATE", "the run has not ended")
        del self.runs[found.run.id]
        return run_service_pb2.DeleteRunResponse()

    def ListSteps(self, request: run_service_pb2.ListStepsRequest, caller: Account) -> Message:
        """Lists the steps of a run in the order of its nodes."""
        items, token = _page([*self._run(request.run_id, caller).steps.values()], request)
        return run_service_pb2.ListStepsResponse(steps=items, next_page_token=token)

    def GetStep(self, request: run_service_pb2.GetStepRequest, caller: Account) -> Message:
        """Returns a step."""
        steps = self._run(request.run_id, caller).steps
        if request.node_id not in steps:
            raise _missing("step", request.node_id)
        return run_service_pb2.GetStepResponse(step=steps[request.node_id])

    def WatchRun(self, request: run_service_pb2.WatchRunRequest, caller: Account) -> Iterator[Message]:
        """Follows the history of a run."""
        events = self._run(request.run_id, caller).events(_after(request.cursor))
        return (run_service_pb2.WatchRunResponse(event=event, cursor=str(at)) for at, event in events)

    def TailLogs(self, request: run_service_pb2.TailLogsRequest, caller: Account) -> Iterator[Message]:
        """Follows the log lines of a run."""
        found = self._run(request.run_id, caller)
        for at, line in found.lines(_after(request.cursor), follow=request.follow):
            if request.node_id in ("", line.node_id):
                yield run_service_pb2.TailLogsResponse(line=line, cursor=str(at))
        yield run_service_pb2.TailLogsResponse(end=LogsEnd(complete=found.run.state in ENDED), cursor=request.cursor)

    def _check(self, request: Any, name: str) -> None:
        document: dict[str, Any] = {
            "name": name,
            "description": getattr(request, "description", ""),
            **_document(request),
        }
        found = examine(document)
        wrong = list(found.wrong)
        for index, node in enumerate(document["dag"]["nodes"]):
            kind = node.get("type") or node.get("pluginId", "")
            if kind not in self.plugins and kind not in BUILTINS:
                wrong.append(Violation(f"dag.nodes[{index}].type", "is neither a built-in nor the name of a plugin"))
        if wrong:
            raise _invalid(*wrong)

    def _add_version(self, workflow: Workflow, request: Any) -> WorkflowVersion:
        kept = self._versions[workflow.id]
        given = {name: getattr(request, name) for name in POLICIES if request.HasField(name)}
        version = WorkflowVersion(id=_new_id(), workflow_id=workflow.id, number=len(kept) + 1, dag=request.dag, **given)
        version.create_time.GetCurrentTime()
        kept.append(version)
        workflow.current_version = version.number
        workflow.update_time.GetCurrentTime()
        return version

    def _whole(self, workflow: Workflow) -> Workflow:
        version = self._version(workflow, workflow.pinned_version_id)
        given = {name: getattr(version, name) for name in POLICIES if version.HasField(name)}
        whole = Workflow(dag=version.dag, **given)
        whole.MergeFrom(workflow)
        return whole

    def _version(self, workflow: Workflow, version_id: str) -> WorkflowVersion:
        versions = self._versions[workflow.id]
        if not version_id:
            return versions[-1]
        found = next((each for each in versions if each.id == version_id), None)
        if found is None:
            raise _missing("version", version_id)
        return found

    def _workflow(self, workflow_id: str, caller: Account) -> Workflow:
        found = self._workflows.get(workflow_id)
        if found is None or found.owner_id != caller.user.id:
            raise _missing("workflow", workflow_id)
        return found

    def _run(self, run_id: str, caller: Account) -> FakeRun:
        found = self.runs.get(run_id)
        if found is None or found.run.owner_id != caller.user.id:
            raise _missing("run", run_id)
        return found

    def _open_run(self, run_id: str, caller: Account, what: str) -> FakeRun:
        found = self._run(run_id, caller)
        if found.run.state in ENDED:
            raise Refused("FAILED_PRECONDITION", "INVALID_STATE", f"the run has ended and cannot be {what}")
        return found


def _document(message: Any) -> dict[str, Any]:
    written: dict[str, Any] = json_format.MessageToDict(message)
    dag = written.get("dag", {})
    kept = {key: written[key] for key in ("inputSchema", "output", "timeoutMs", "concurrency") if key in written}
    if "timeoutMs" in kept:
        kept["timeoutMs"] = int(kept["timeoutMs"])
    return {**kept, "dag": {"nodes": dag.get("nodes", []), "edges": dag.get("edges", [])}}


def _dag(version: WorkflowVersion) -> Dag[Node]:
    document = _document(version)
    dag = document.pop("dag")
    return read_dag({**document, **dag})


def _page(items: list[Any], request: Any) -> tuple[list[Any], str]:
    start = int(request.page_token or 0)
    end = start + (request.page_size or DEFAULT_PAGE)
    return items[start:end], str(end) if end < len(items) else ""


def _after(cursor: str) -> int:
    return int(cursor) + 1 if cursor else 0


def _sign_in(account: Account) -> str:
    token = uuid.uuid4().hex
    account.tokens.add(token)
    return token


def _new_id() -> str:
    return str(uuid.uuid4())


def _missing(kind: str, name: str) -> Refused:
    return Refused("NOT_FOUND", "NOT_FOUND", f"there is no {kind} {name}")


def _invalid(*violations: Violation) -> Refused:
    message = "; ".join(f"{each.field}: {each.message}" for each in violations)
    return Refused("INVALID_ARGUMENT", "INVALID_DAG", message, violations)
