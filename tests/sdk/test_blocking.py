"""The blocking client is the asynchronous one on a thread: the same calls, answers and errors."""

import threading
from typing import Any

import grpc
import pytest
from cli_fakes import FakeControlPlane, Refusal

from towline.v1 import run_service_pb2, workflow_service_pb2
from towline.v1.run_pb2 import Event, Run
from towline.v1.workflow_pb2 import Workflow
from towline_sdk.blocking import BlockingClient
from towline_sdk.errors import NotFoundError


def test_calls_return_when_they_are_done(control_plane: FakeControlPlane) -> None:
    answer = workflow_service_pb2.GetWorkflowResponse(workflow=Workflow(id="w1"))
    control_plane.answers["GetWorkflow"] = lambda _: answer
    with BlockingClient(control_plane.address, "token-1") as client:
        assert client.workflows.get("w1").id == "w1"
    assert control_plane.calls[0].metadata["authorization"] == "Bearer token-1"


def test_a_run_is_followed_while_it_goes_on(control_plane: FakeControlPlane) -> None:
    seen = threading.Event()

    def watch(_: Any) -> Any:
        yield run_service_pb2.WatchRunResponse(event=Event(type="RUN_CREATED"), cursor="1")
        assert seen.wait(30)  # the first event has arrived before there is a second one
        yield run_service_pb2.WatchRunResponse(event=Event(type="RUN_SUCCEEDED"), cursor="2")

    control_plane.answers |= {
        "StartRun": lambda _: run_service_pb2.StartRunResponse(run=Run(id="r1")),
        "WatchRun": watch,
        "GetRun": lambda _: run_service_pb2.GetRunResponse(run=Run(id="r1", state="SUCCEEDED")),
    }
    types: list[Event.Type] = []
    with BlockingClient(control_plane.address) as client:
        started = client.runs.start("w1", {"n": 1})
        assert (started.id, started.run.id) == ("r1", "r1")
        for event in started.watch():
            types.append(event.type)
            seen.set()
        assert started.result().state == Run.SUCCEEDED
    assert types == [Event.RUN_CREATED, Event.RUN_SUCCEEDED]


def test_who_stops_following_ends_the_call(control_plane: FakeControlPlane) -> None:
    left = threading.Event()

    def watch(_: Any) -> Any:
        try:
            while True:
                yield run_service_pb2.WatchRunResponse(event=Event(type="STEP_READY"), cursor="1")
        finally:
            left.set()

    control_plane.answers["WatchRun"] = watch
    with BlockingClient(control_plane.address) as client:
        for _ in client.runs.watch("r1"):
            break
        assert left.wait(30)


def test_errors_are_those_of_the_client(control_plane: FakeControlPlane) -> None:
    def refuse(_: Any) -> Any:
        raise Refusal(grpc.StatusCode.NOT_FOUND, "there is no run r1", "NOT_FOUND")

    control_plane.answers["GetRun"] = refuse
    with BlockingClient(control_plane.address) as client, pytest.raises(NotFoundError, match="no run r1"):
        client.runs.get("r1")


def test_a_closed_client_leaves_no_thread_and_takes_no_call(control_plane: FakeControlPlane) -> None:
    client = BlockingClient(control_plane.address)
    client.close()
    client.close()
    assert "towline-client" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(RuntimeError, match="closed"):
        client.runs.get("r1")
