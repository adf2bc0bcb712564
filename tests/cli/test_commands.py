import json
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import FakeControlPlane, Terminal
from google.protobuf.json_format import MessageToDict

from towline.v1 import (
    agent_admin_service_pb2,
    auth_service_pb2,
    plugin_service_pb2,
    run_service_pb2,
    user_service_pb2,
    workflow_service_pb2,
)
from towline.v1.agent_pb2 import Agent, AgentInfo
from towline.v1.api_key_pb2 import ApiKey
from towline.v1.explanation_pb2 import Explanation
from towline.v1.plugin_pb2 import Plugin
from towline.v1.run_pb2 import Failure, Run, Step
from towline.v1.user_pb2 import User
from towline.v1.workflow_pb2 import Workflow, WorkflowVersion
from towline_cli import agent_commands

WORKFLOW_FILE = {"name": "w", "description": "d", "dag": {"nodes": [{"id": "a", "type": "DELAY"}], "edges": []}}
DAG = {"nodes": [{"id": "a", "type": "DELAY"}]}
# Command, the method it calls, and what it sends.
COMMANDS: list[tuple[str, str, dict[str, Any]]] = [
    ("register -e a@b.c --name A --password-stdin", "Register", {"email": "a@b.c", "password": "secret", "name": "A"}),
    ("login -e a@b.c --password-stdin", "Login", {"email": "a@b.c", "password": "secret"}),
    ("whoami", "GetMe", {}),
    ("logout", "Logout", {}),
    (
        "api-key create ci --scope runs:* --scope workflows:read --lifetime-seconds 60",
        "CreateApiKey",
        {"name": "ci", "scopes": ["runs:*", "workflows:read"], "lifetime": "60s"},
    ),
    ("api-key list --page-size 3", "ListApiKeys", {"pageSize": 3}),
    ("api-key revoke k1", "RevokeApiKey", {"apiKeyId": "k1"}),
    ("admin user list", "ListUsers", {}),
    (
        "admin audit-log --user a@b.c --method RunService/StartRun --page-size 3",
        "ListAuditEvents",
        {"userId": "a@b.c", "method": "RunService/StartRun", "pageSize": 3},
    ),
    ("admin user get a@b.c", "GetUser", {"userId": "a@b.c"}),
    ("admin user role a@b.c admin", "SetUserRole", {"userId": "a@b.c", "role": "ADMIN"}),
    (
        "admin user password a@b.c --password-stdin",
        "SetUserPassword",
        {"userId": "a@b.c", "password": "secret"},
    ),
    ("admin user disable a@b.c", "DisableUser", {"userId": "a@b.c"}),
    ("admin user enable a@b.c", "EnableUser", {"userId": "a@b.c"}),
    ("admin user sign-out a@b.c --api-keys", "SignOutUser", {"userId": "a@b.c", "apiKeys": True}),
    ("workflow create -f FILE", "CreateWorkflow", {"name": "w", "description": "d", "dag": DAG}),
    ("workflow create -f FILE --name x", "CreateWorkflow", {"name": "x", "description": "d", "dag": DAG}),
    ("workflow list --page-size 3 --page-token t", "ListWorkflows", {"pageSize": 3, "pageToken": "t"}),
    ("workflow get w1", "GetWorkflow", {"workflowId": "w1"}),
    ("workflow update w1 --description e", "UpdateWorkflow", {"workflowId": "w1", "description": "e"}),
    (
        "workflow update w1 -f FILE --name y",
        "UpdateWorkflow",
        {"workflowId": "w1", "name": "y", "description": "d", "dag": DAG},
    ),
    ("workflow delete w1", "DeleteWorkflow", {"workflowId": "w1"}),
    ("workflow version create w1 -f FILE", "CreateWorkflowVersion", {"workflowId": "w1", "dag": DAG}),
    ("workflow version list w1", "ListWorkflowVersions", {"workflowId": "w1"}),
    ("workflow pin w1 v1", "PinWorkflowVersion", {"workflowId": "w1", "versionId": "v1"}),
    ("run list --workflow w1 --state running", "ListRuns", {"workflowId": "w1", "state": "RUNNING"}),
    ("run get r1", "GetRun", {"runId": "r1"}),
    ("run steps r1", "ListSteps", {"runId": "r1"}),
    ("run steps r1 --node a", "GetStep", {"runId": "r1", "nodeId": "a"}),
    ("run explain r1 a", "ExplainStep", {"runId": "r1", "nodeId": "a"}),
    ("run logs r1", "TailLogs", {"runId": "r1"}),
    ("run logs r1 -f --node a", "TailLogs", {"runId": "r1", "nodeId": "a", "follow": True}),
    ("run pause r1", "PauseRun", {"runId": "r1", "mode": "DRAIN"}),
    ("run pause r1 --freeze", "PauseRun", {"runId": "r1", "mode": "FREEZE"}),
    ("run resume r1", "ResumeRun", {"runId": "r1"}),
    ("run cancel r1", "CancelRun", {"runId": "r1"}),
    ("run delete r1", "DeleteRun", {"runId": "r1"}),
    ("plugin list", "ListPlugins", {}),
    ("plugin get p", "GetPlugin", {"pluginId": "p"}),
    ("secret set API_KEY", "PutSecret", {"name": "API_KEY", "value": "secret"}),
    ("secret set API_KEY --from-file FILE", "PutSecret", {"name": "API_KEY", "value": json.dumps(WORKFLOW_FILE)}),
    ("secret list --page-size 3 --page-token t", "ListSecrets", {"pageSize": 3, "pageToken": "t"}),
    ("secret get API_KEY", "GetSecret", {"secretId": "API_KEY"}),
    ("secret delete API_KEY", "DeleteSecret", {"secretId": "API_KEY"}),
    ("secret grant API_KEY mine", "GrantSecret", {"secretId": "API_KEY", "plugin": "mine"}),
    ("secret revoke API_KEY mine", "RevokeSecret", {"secretId": "API_KEY", "plugin": "mine"}),
    ("admin secrets rotate", "RotateSecrets", {}),
    ("agent list", "ListAgents", {}),
    ("agent get m", "GetAgent", {"agentId": "m"}),
    ("agent drain m", "DrainAgent", {"agentId": "m"}),
    ("agent undrain m", "UndrainAgent", {"agentId": "m"}),
    ("agent disable m", "DisableAgent", {"agentId": "m"}),
    ("agent enable m", "EnableAgent", {"agentId": "m"}),
    ("agent rotate m", "RotateAgent", {"agentId": "m"}),
    ("agent tokens", "ListEnrollmentTokens", {}),
    ("agent revoke-token 0a1b", "RevokeEnrollmentToken", {"tokenId": "0a1b"}),
    ("agent token --uses 2 --lifetime-seconds 60", "CreateEnrollmentToken", {"uses": 2, "lifetime": "60s"}),
]
USER = User(id="u1", email="a@b.c", role="USER")
RUN = Run(id="r1", workflow_id="w1", state="RUNNING")
WORKFLOW = Workflow(id="w1", name="w", current_version=2)
PLUGIN = Plugin(id="p1", name="p", latest_version="1.0.0")
FAILED_STEP = Step(node_id="a", state="FAILED", attempt=2, error=Failure(code="TIMEOUT", message="too slow"))
EXPLANATION = Explanation(
    node_id="a",
    summary="the run is paused",
    verdicts=[Explanation.Verdict(rule="PAUSE", message="the run is paused")],
    agents=[
        Explanation.AgentVerdict(
            name="m",
            unmet=[
                Explanation.Verdict(rule="DRAIN", message="is drained"),
                Explanation.Verdict(rule="ONLINE", message="is offline"),
            ],
        )
    ],
)
# Command, method, its answer, what the JSON holds, what the table shows.
OUTPUTS: list[tuple[str, str, Any, dict[str, Any], list[str]]] = [
    ("whoami", "GetMe", auth_service_pb2.GetMeResponse(user=USER), {"id": "u1", "role": "USER"}, ["u1", "a@b.c"]),
    (
        "workflow get w1",
        "GetWorkflow",
        workflow_service_pb2.GetWorkflowResponse(workflow=WORKFLOW),
        {"id": "w1"},
        ["w1"],
    ),
    (
        "workflow list",
        "ListWorkflows",
        workflow_service_pb2.ListWorkflowsResponse(workflows=[WORKFLOW], next_page_token="n"),
        {"nextPageToken": "n"},
        ["ID", "w1", "2"],
    ),
    (
        "workflow version list w1",
        "ListWorkflowVersions",
        workflow_service_pb2.ListWorkflowVersionsResponse(versions=[WorkflowVersion(id="v1", number=1)]),
        {"nextPageToken": ""},
        ["NUMBER", "v1"],
    ),
    ("run get r1", "GetRun", run_service_pb2.GetRunResponse(run=RUN), {"state": "RUNNING"}, ["RUNNING"]),
    ("run list", "ListRuns", run_service_pb2.ListRunsResponse(runs=[RUN]), {"nextPageToken": ""}, ["r1", "RUNNING"]),
    (
        "run steps r1",
        "ListSteps",
        run_service_pb2.ListStepsResponse(steps=[FAILED_STEP]),
        {"nextPageToken": ""},
        ["a", "FAILED", "2", "TIMEOUT: too slow"],
    ),
    (
        "run explain r1 a",
        "ExplainStep",
        run_service_pb2.ExplainStepResponse(explanation=EXPLANATION),
        {"summary": "the run is paused"},
        ["RULE", "PAUSE", "no", "AGENT", "m", "is drained; is offline"],
    ),
    (
        "plugin get p",
        "GetPlugin",
        plugin_service_pb2.GetPluginResponse(plugin=PLUGIN),
        {"latestVersion": "1.0.0"},
        ["p1"],
    ),
    ("plugin list", "ListPlugins", plugin_service_pb2.ListPluginsResponse(plugins=[PLUGIN]), {}, ["p", "1.0.0"]),
    (
        "agent list",
        "ListAgents",
        agent_admin_service_pb2.ListAgentsResponse(
            agents=[
                Agent(
                    name="m",
                    state="ONLINE",
                    running=1,
                    drained=True,
                    unschedulable="disk is full",
                    info=AgentInfo(slots=4, labels={"zone": "eu"}, sandbox={"level": "L2"}, plugins=["SHELL", "DELAY"]),
                )
            ]
        ),
        {},
        ["m", "ONLINE (drained)", "1/4", "disk is full", "zone=eu", "L2", "SHELL,DELAY"],
    ),
    (
        "api-key list",
        "ListApiKeys",
        auth_service_pb2.ListApiKeysResponse(api_keys=[ApiKey(id="k1", prefix="tlk_ab", scopes=["runs:*"])]),
        {"nextPageToken": ""},
        ["k1", "tlk_ab", "runs:*"],
    ),
    (
        "admin user list",
        "ListUsers",
        user_service_pb2.ListUsersResponse(users=[User(id="u1", email="a@b.c", role="USER", disabled=True)]),
        {"nextPageToken": ""},
        ["u1", "a@b.c", "yes"],
    ),
    (
        "agent token",
        "CreateEnrollmentToken",
        agent_admin_service_pb2.CreateEnrollmentTokenResponse(token="tok"),
        {"token": "tok"},
        ["tok"],
    ),
]


def split(command: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(WORKFLOW_FILE))
    return command.replace("FILE", str(file)).split()


@pytest.mark.parametrize(("command", "method", "sent"), COMMANDS, ids=[command for command, _, _ in COMMANDS])
def test_command_sends_its_request_with_the_token(
    command: str,
    method: str,
    sent: dict[str, Any],
    towline: Terminal,
    control_plane: FakeControlPlane,
    tmp_path: Path,
) -> None:
    result = towline(*split(command, tmp_path), stdin="secret\n")

    assert (result.code, result.stderr) == (0, "")
    (call,) = control_plane.calls
    assert (call.method, MessageToDict(call.request)) == (method, sent)
    assert call.metadata.get("authorization") == (None if method == "Login" else "Bearer token-1")
    assert call.metadata["x-request-id"]


@pytest.mark.parametrize(
    ("command", "method", "answer", "document", "words"), OUTPUTS, ids=[command for command, *_ in OUTPUTS]
)
def test_answer_is_printed_as_table_and_as_json(
    command: str,
    method: str,
    answer: Any,
    document: dict[str, Any],
    words: list[str],
    towline: Terminal,
    control_plane: FakeControlPlane,
) -> None:
    control_plane.answers[method] = lambda _: answer

    table = towline(*command.split())
    printed = towline(*command.split(), "--output", "json")

    assert set(words) <= set(table.stdout.split()) | {line.strip() for line in table.stdout.split("  ")}
    assert json.loads(printed.stdout).items() >= document.items()
    assert printed.stdout == towline(*command.split(), "-o", "json").stdout


def test_json_of_a_list_is_that_of_rest(towline: Terminal, control_plane: FakeControlPlane) -> None:
    answer = workflow_service_pb2.ListWorkflowsResponse(workflows=[WORKFLOW], next_page_token="n")
    control_plane.answers["ListWorkflows"] = lambda _: answer

    assert json.loads(towline("workflow", "list", "-o", "json").stdout) == {
        "workflows": [
            {
                "id": "w1",
                "name": "w",
                "description": "",
                "ownerId": "",
                "currentVersion": 2,
                "pinnedVersionId": "",
                "etag": "",
            }
        ],
        "nextPageToken": "n",
    }


def test_run_start_sends_the_input_and_a_request_id(
    towline: Terminal, control_plane: FakeControlPlane, tmp_path: Path
) -> None:
    control_plane.answers["StartRun"] = lambda _: run_service_pb2.StartRunResponse(run=RUN)
    file = tmp_path / "input.json"
    file.write_text('{"n": 1}')

    assert towline("run", "start", "w1", "--input", f"@{file}", "--priority", "7", "--version", "v1").code == 0

    sent = MessageToDict(control_plane.request("StartRun"))
    assert len(sent.pop("requestId")) == 32
    assert sent == {"workflowId": "w1", "input": {"n": 1.0}, "priority": 7, "versionId": "v1"}


def test_steps_of_all_pages_are_listed(towline: Terminal, control_plane: FakeControlPlane) -> None:
    pages = {
        "": run_service_pb2.ListStepsResponse(steps=[Step(node_id="a")], next_page_token="2"),
        "2": run_service_pb2.ListStepsResponse(steps=[Step(node_id="b")]),
    }
    control_plane.answers["ListSteps"] = lambda request: pages[request.page_token]

    steps = json.loads(towline("run", "steps", "r1", "-o", "json").stdout)["steps"]

    assert [step["nodeId"] for step in steps] == ["a", "b"]


def test_plugin_push_sends_the_bundle_in_chunks(
    towline: Terminal, control_plane: FakeControlPlane, tmp_path: Path
) -> None:
    (tmp_path / "plugin.toml").write_text('name = "p"\nversion = "1.0.0"\nentry_point = "python:plugin:main"\n')
    (tmp_path / "plugin.py").write_text("def main(): ...\n")
    control_plane.answers["PushPlugin"] = lambda _: plugin_service_pb2.PushPluginResponse(plugin=PLUGIN)

    result = towline("plugin", "push", str(tmp_path), "-o", "json")

    assert json.loads(result.stdout)["id"] == "p1"
    assert b"".join(each.chunk for each in control_plane.request("PushPlugin"))[:2] == b"\x1f\x8b"


def test_a_drain_that_waits_ends_when_the_agent_runs_nothing(
    towline: Terminal, control_plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_commands, "WAIT_SECONDS", 0.0)
    running = iter([1, 1, 0])
    control_plane.answers["DrainAgent"] = lambda _: agent_admin_service_pb2.DrainAgentResponse(
        agent=Agent(id="a1", running=2)
    )
    control_plane.answers["GetAgent"] = lambda _: agent_admin_service_pb2.GetAgentResponse(
        agent=Agent(id="a1", running=next(running))
    )

    result = towline("agent", "drain", "m", "--wait", "-o", "json")

    assert json.loads(result.stdout)["running"] == 0
    assert control_plane.methods() == ["DrainAgent", *["GetAgent"] * 3]
    assert [line.split()[-1] for line in result.stderr.splitlines()] == ["2", "1"]


def test_a_drain_waits_only_as_long_as_it_is_told(towline: Terminal, control_plane: FakeControlPlane) -> None:
    busy = Agent(id="a1", name="m", running=2)
    control_plane.answers["DrainAgent"] = lambda _: agent_admin_service_pb2.DrainAgentResponse(agent=busy)
    control_plane.answers["GetAgent"] = lambda _: agent_admin_service_pb2.GetAgentResponse(agent=busy)
    assert towline("agent", "drain", "m", "--wait", "--timeout", "0.01").code == 6


def test_version_and_help_need_no_server(towline: Terminal, control_plane: FakeControlPlane) -> None:
    assert towline("version").stdout == "0.1.0\n"
    assert "3 not signed in" in " ".join(towline("--help").stdout.split())
    assert control_plane.calls == []
