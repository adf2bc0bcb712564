from typing import Any

import grpc
import pytest
from cli_fakes import FakeControlPlane, Refusal, Terminal

from towline.v1 import run_service_pb2
from towline.v1.run_pb2 import Event, LogLine, Run
from towline_sdk import transport

UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "going away", "UNAVAILABLE")
# gRPC code and what the command exits with.
CODES = [
    (grpc.StatusCode.INVALID_ARGUMENT, 2),
    (grpc.StatusCode.UNAUTHENTICATED, 3),
    (grpc.StatusCode.PERMISSION_DENIED, 3),
    (grpc.StatusCode.NOT_FOUND, 4),
    (grpc.StatusCode.UNAVAILABLE, 5),
    (grpc.StatusCode.DEADLINE_EXCEEDED, 5),
    (grpc.StatusCode.ALREADY_EXISTS, 6),
    (grpc.StatusCode.FAILED_PRECONDITION, 6),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, 6),
    (grpc.StatusCode.INTERNAL, 6),
]
# Command and a part of what it says about the user's own mistake.
MISTAKES = [
    ("run start w1 --input {", "error: --input is not JSON"),
    ("run start w1 --input [NaN]", "NaN is not a JSON number"),
    ("run start w1 --input [9007199254740992]", "  input[0]: is an integer beyond"),
    ("run start w1 --input @missing.json", "error: cannot read missing.json"),
    ("run list --state SLEEPING", "error: --state SLEEPING is none of PENDING, RUNNING"),
    ("run start w1 --priority 101", "Error: Invalid value for '--priority'"),
    ("workflow create -f missing.json", "error: cannot read missing.json"),
    ("workflow update w1", "error: nothing to change"),
    ("workflow create", "Error: Missing option '--file'"),
    ("plugin push missing", "error: cannot read missing/plugin.toml"),
    ("login -e a@b.c", "error: no terminal to ask for the password"),
    ("bogus", "Error: No such command 'bogus'."),
]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_BACKOFF_SECONDS", 0.0)


def refusing(*refusals: Refusal, then: Any = None) -> Any:
    left = list(refusals)

    def answer(_: Any) -> Any:
        if left:
            raise left.pop(0)
        return then

    return answer


@pytest.mark.parametrize(("code", "exit_code"), CODES, ids=[code.name for code, _ in CODES])
def test_exit_code_follows_from_the_status(
    code: grpc.StatusCode, exit_code: int, towline: Terminal, control_plane: FakeControlPlane
) -> None:
    def refuse(_: Any) -> Any:
        raise Refusal(code, "not so", code.name)

    control_plane.answers["GetRun"] = refuse

    result = towline("run", "get", "r1")

    assert (result.code, result.stdout) == (exit_code, "")
    assert result.stderr.splitlines()[0] == "error: not so"


@pytest.mark.parametrize(
    ("message", "fields", "said"),
    [
        ("cannot run", [("a", "is wrong")], "error: cannot run\n  a: is wrong\n"),
        ("a: is wrong", [("a", "is wrong")], "error: a: is wrong\n"),
        ("a: x; b: y", [("a", "x"), ("b", "y")], "error: the request is not valid\n  a: x\n  b: y\n"),
        ("cannot run", [("a", "x"), ("b", "y")], "error: cannot run\n  a: x\n  b: y\n"),
    ],
)
def test_each_field_violation_is_said_once(
    message: str, fields: list[tuple[str, str]], said: str, towline: Terminal, control_plane: FakeControlPlane
) -> None:
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, "INVALID_DAG", fields)
    control_plane.answers["GetRun"] = refusing(refusal)

    assert towline("run", "get", "r1").stderr == said


def test_who_asks_too_often_is_told_when_to_come_back(towline: Terminal, control_plane: FakeControlPlane) -> None:
    refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many", "RATE_LIMITED", retry_seconds=7)
    control_plane.answers["GetMe"] = refusing(refusal)

    result = towline("whoami")

    assert (result.code, result.stderr) == (6, "error: too many\n  try again in 7 s\n")


def test_who_is_not_signed_in_is_told_how(towline: Terminal, control_plane: FakeControlPlane) -> None:
    control_plane.answers["GetMe"] = refusing(Refusal(grpc.StatusCode.UNAUTHENTICATED, "who?", "UNAUTHENTICATED"))

    assert "sign in with: towline login" in towline("whoami").stderr


def test_defect_of_the_server_is_reported_with_the_request_id(
    towline: Terminal, control_plane: FakeControlPlane
) -> None:
    control_plane.answers["GetMe"] = refusing(Refusal(grpc.StatusCode.INTERNAL, "a defect", "INTERNAL"))

    result = towline("whoami")

    assert control_plane.calls[0].metadata["x-request-id"] in result.stderr


def test_server_that_is_not_there_is_named(towline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_SERVER", "127.0.0.1:1")

    result = towline("whoami")

    assert (result.code, result.stderr) == (5, "error: cannot reach Towline at 127.0.0.1:1\n")


@pytest.mark.parametrize(("command", "words"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_mistakes_exit_with_2_and_reach_no_server(
    command: str, words: str, towline: Terminal, control_plane: FakeControlPlane
) -> None:
    result = towline(*command.split())

    assert result.code == 2
    assert words in result.stderr
    assert control_plane.calls == []


def test_repeatable_call_is_sent_again_while_the_server_is_away(
    towline: Terminal, control_plane: FakeControlPlane
) -> None:
    answer = run_service_pb2.StartRunResponse(run=Run(id="r1"))
    control_plane.answers["StartRun"] = refusing(UNAVAILABLE, UNAVAILABLE, then=answer)

    assert towline("run", "start", "w1").code == 0

    assert control_plane.methods() == ["StartRun"] * 3
    assert len({call.request.request_id for call in control_plane.calls}) == 1
    assert len({call.metadata["x-request-id"] for call in control_plane.calls}) == 1


def test_call_that_is_not_repeatable_is_sent_once(towline: Terminal, control_plane: FakeControlPlane) -> None:
    control_plane.answers["DeleteWorkflow"] = refusing(UNAVAILABLE, UNAVAILABLE)

    assert towline("workflow", "delete", "w1").code == 5
    assert control_plane.methods() == ["DeleteWorkflow"]


def test_every_repeatable_method_exists() -> None:
    from cli_fakes import CONTRACT

    services = [service for module in CONTRACT for service in module.DESCRIPTOR.services_by_name.values()]
    methods = {method.name for service in services for method in service.methods}
    assert methods >= transport.REPEATABLE
    assert not any(transport.may_repeat(method) for method in methods if method.startswith(("Create", "Delete", "Put")))


def test_stream_goes_on_from_the_last_cursor(towline: Terminal, control_plane: FakeControlPlane) -> None:
    lines = [run_service_pb2.TailLogsResponse(line=LogLine(node_id="a", text=str(n)), cursor=str(n)) for n in range(4)]

    def tail(request: Any) -> Any:
        start = int(request.cursor or "-1") + 1
        yield from lines[start : start + 2]
        if start + 2 < len(lines):
            raise UNAVAILABLE

    control_plane.answers["TailLogs"] = tail

    result = towline("run", "logs", "r1", "--follow")

    assert [line[-1] for line in result.stdout.splitlines()] == ["0", "1", "2", "3"]
    assert [call.request.cursor for call in control_plane.calls] == ["", "1"]


@pytest.mark.parametrize(("state", "exit_code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELLED", 1)])
def test_watching_exits_with_the_outcome_of_the_run(
    state: str, exit_code: int, towline: Terminal, control_plane: FakeControlPlane
) -> None:
    run = Run(id="r1", state=state)
    event = Event(sequence=1, type="RUN_" + state, create_time={"seconds": 1})
    line = LogLine(node_id="a", attempt=1, text="hello", create_time={"seconds": 1})
    control_plane.answers |= {
        "StartRun": lambda _: run_service_pb2.StartRunResponse(run=Run(id="r1")),
        "GetRun": lambda _: run_service_pb2.GetRunResponse(run=run),
        "WatchRun": lambda _: [run_service_pb2.WatchRunResponse(event=event, cursor="1")],
        "TailLogs": lambda _: [run_service_pb2.TailLogsResponse(line=line, cursor="1")],
    }

    followed = towline("run", "watch", "r1")
    started = towline("run", "start", "w1", "--watch")
    documents = towline("run", "watch", "r1", "-o", "json")

    assert (followed.code, started.code, documents.code) == (exit_code,) * 3
    for result in (followed, started):
        assert f"run {state}\n" in result.stdout
        assert "a[1] | hello\n" in result.stdout
    assert documents.stdout.count("\n") == 1
    assert f'"type": "RUN_{state}"' in documents.stdout
