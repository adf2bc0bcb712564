"""Runs that are started and followed in one expression, sent once in all."""

import asyncio
from typing import Any

import grpc
import pytest
from cli_fakes import FakeControlPlane, Refusal

from towline.v1 import run_service_pb2
from towline.v1.run_pb2 import Event, LogLine, Run
from towline_sdk import transport
from towline_sdk.client import Client
from towline_sdk.errors import ConflictError, UnavailableError


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_BACKOFF_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def a_run(control_plane: FakeControlPlane) -> None:
    events = [Event(sequence=n, type=kind) for n, kind in enumerate(("RUN_CREATED", "RUN_SUCCEEDED"))]
    control_plane.answers |= {
        "StartRun": lambda _: run_service_pb2.StartRunResponse(run=Run(id="r1")),
        "GetRun": lambda _: run_service_pb2.GetRunResponse(run=Run(id="r1", state="SUCCEEDED")),
        "WatchRun": lambda _: [run_service_pb2.WatchRunResponse(event=each, cursor="c") for each in events],
        "TailLogs": lambda _: [run_service_pb2.TailLogsResponse(line=LogLine(text="hi"), cursor="c")],
    }


def test_a_run_is_started_by_whoever_follows_it_first_and_once(control_plane: FakeControlPlane) -> None:
    async def scenario() -> tuple[list[Event.Type], list[str], Run]:
        async with Client(control_plane.address) as client:
            started = client.runs.start("w1", {"n": [1, 2.5, None]})
            with pytest.raises(RuntimeError):
                _ = started.id
            events = [event.type async for event in started.watch()]
            lines = [line.text async for line in started.logs()]
            assert started.id == "r1"
            return events, lines, await started.result()

    events, lines, ended = asyncio.run(scenario())
    assert (events, lines, ended.state) == ([Event.RUN_CREATED, Event.RUN_SUCCEEDED], ["hi"], Run.SUCCEEDED)
    assert control_plane.methods().count("StartRun") == 1


def test_a_lost_answer_does_not_start_a_second_run(control_plane: FakeControlPlane) -> None:
    started: dict[str, Run] = {}
    lost = iter([True, True, False, False])

    def start(request: Any) -> Any:
        run = started.setdefault(request.request_id, Run(id=f"r{len(started)}"))
        if next(lost):
            raise Refusal(grpc.StatusCode.UNAVAILABLE)
        return run_service_pb2.StartRunResponse(run=run)

    async def scenario() -> list[str]:
        async with Client(control_plane.address) as client:
            return [(await client.runs.start("w1")).id for _ in range(2)]

    control_plane.answers["StartRun"] = start
    assert asyncio.run(scenario()) == ["r0", "r1"]
    assert len(started) == 2


@pytest.mark.parametrize(
    ("code", "error", "sent"),
    [
        (grpc.StatusCode.UNAVAILABLE, UnavailableError, transport.UNARY_TRIES),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UnavailableError, 1),
        (grpc.StatusCode.ABORTED, ConflictError, 1),
    ],
)
def test_only_what_never_arrived_is_sent_again(
    code: grpc.StatusCode, error: type[Exception], sent: int, control_plane: FakeControlPlane
) -> None:
    def refuse(_: Any) -> Any:
        raise Refusal(code)

    async def scenario() -> None:
        async with Client(control_plane.address) as client:
            await client.runs.get("r1")

    control_plane.answers["GetRun"] = refuse
    with pytest.raises(error):
        asyncio.run(scenario())
    assert control_plane.methods() == ["GetRun"] * sent


def test_a_call_ends_at_its_deadline(control_plane: FakeControlPlane) -> None:
    def refuse(_: Any) -> Any:
        raise Refusal(grpc.StatusCode.UNAVAILABLE)

    async def scenario() -> None:
        async with Client(control_plane.address, deadline_seconds=0.0) as client:
            await client.runs.get("r1")

    control_plane.answers["GetRun"] = refuse
    with pytest.raises(UnavailableError):
        asyncio.run(scenario())
    assert len(control_plane.calls) <= 1
