"""Connections: agreed pings, an age after which clients look anew, deadlines, health, and a stop that is heard."""

import asyncio
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc import ChannelConnectivity, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from raw_http2 import ENHANCE_YOUR_CALM, GOAWAY, PING, Connection
from service_rig import DAG, SERVICES, Caller, Rig, control_plane, refusal, serve
from structlog.testing import capture_logs

from towline.v1.run_pb2 import Event
from towline.v1.workflow_service_pb2 import CreateWorkflowRequest
from towline_agent import grpc_control_plane
from towline_controlplane.services.connections import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, MIN_PING_SECONDS
from towline_controlplane.services.health import HEALTH_NAME
from towline_gateway.control_plane import OPTIONS as GATEWAY_OPTIONS
from towline_sdk import failover, transport
from towline_sdk.client import Client

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
OURS = {
    "agent": grpc_control_plane.OPTIONS,
    "gateway": GATEWAY_OPTIONS,
    "sdk": transport.CHANNEL_OPTIONS,
}


@pytest.mark.parametrize("client", OURS)
def test_our_clients_keep_to_what_the_server_asks_of_connections(client: str) -> None:
    options: dict[str, Any] = dict(OURS[client])
    assert options["grpc.keepalive_time_ms"] >= 2 * MIN_PING_SECONDS * 1000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.max_receive_message_length"] >= MAX_ANSWER_BYTES
    assert options.get("grpc.max_send_message_length", MAX_REQUEST_BYTES) >= MAX_REQUEST_BYTES


def test_a_client_that_pings_without_end_is_sent_away(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        connection = await Connection.open(rig.address)
        for _ in range(10):
            connection.send(PING, 0, 0, b"00000000")
        said = (await connection.frames_until(GOAWAY))[-1].payload
        assert int.from_bytes(said[4:8]) == ENHANCE_YOUR_CALM
        assert said[8:] == b"too_many_pings"
        connection.close()

    serve(tmp_path, scenario)


async def _started(user: Caller) -> str:
    workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
    return (await user.call("RunService/StartRun", workflowId=workflow.id)).run.id


def test_an_old_connection_lets_its_calls_end_and_takes_no_more(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = await _started(user)
        watch = user.open("RunService/WatchRun", runId=run_id)
        answers = aiter(watch)
        seen = [await anext(answers)]
        # Sent away: the channel would connect anew, while the watch goes on over what it has.
        await rig.channel.wait_for_state_change(ChannelConnectivity.READY)
        assert (await user.call("RunService/GetRun", runId=run_id)).run.id == run_id
        await agent.succeed_all()
        seen += [answer async for answer in answers]
        assert [each.event.sequence for each in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].event.type == Event.RUN_SUCCEEDED
        assert await watch.code() == grpc.StatusCode.OK

    serve(tmp_path, scenario, connection_age_seconds=0.3)


def test_what_is_cut_off_after_the_grace_is_resumed_without_a_gap(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = await _started(user)
        doomed = user.open("RunService/WatchRun", runId=run_id)
        async with Client(rig.address, token=user.credential) as client:
            seen: list[Any] = []
            resumed = asyncio.Event()

            async def follow() -> None:
                async for event in client.runs.watch(run_id):
                    seen.append(event)
                    resumed.set()

            following = asyncio.create_task(follow())
            await resumed.wait()
            with pytest.raises(aio.AioRpcError) as cut:
                async for _ in doomed:
                    pass
            assert cut.value.code() == grpc.StatusCode.UNAVAILABLE
            await agent.succeed_all()
            await following
        assert [each.sequence for each in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].type == Event.RUN_SUCCEEDED

    serve(tmp_path, scenario, connection_age_seconds=0.3, connection_grace_seconds=0.1)


def test_clients_of_several_replicas_move_on_when_a_connection_is_old(tmp_path: Path) -> None:
    async def scenario(first: Rig) -> None:
        (tmp_path / "other").mkdir()
        async with control_plane(tmp_path / "other", connection_age_seconds=0.3) as second:
            for rig, name in ((first, "first"), (second, "second")):
                await rig.server.report_health(name, serving=True)
            async with failover.open_channel(f"{first.address},{second.address}", OURS["sdk"]) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                left = {"first", "second"}
                while left:
                    for name in tuple(left):
                        watch = health.Watch(health_pb2.HealthCheckRequest(service=name))
                        left -= {name} if (await watch.read()).status == SERVING else set()

    serve(tmp_path, scenario, connection_age_seconds=0.3)


def test_a_call_that_comes_after_its_deadline_does_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        connection = await Connection.open(rig.address)
        headers = {"authorization": f"Bearer {user.credential}", "grpc-timeout": "1n"}
        request = CreateWorkflowRequest(name="late")
        connection.call("/towline.v1.WorkflowService/CreateWorkflow", headers, request.SerializeToString())
        await connection.frames_until(None)
        assert not (await user.call("WorkflowService/ListWorkflows")).workflows
        connection.close()

    serve(tmp_path, scenario)


def test_a_call_is_cancelled_where_it_waits_when_its_deadline_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        cancelled, recognise = asyncio.Event(), rig.accounts.person_of

        async def never(token: str) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        monkeypatch.setattr(rig.accounts, "person_of", never)
        with capture_logs() as logged:
            with pytest.raises(aio.AioRpcError) as late:
                await user.open("WorkflowService/CreateWorkflow", name="late", timeout=0.2)
            await cancelled.wait()
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        monkeypatch.setattr(rig.accounts, "person_of", recognise)
        assert not (await user.call("WorkflowService/ListWorkflows")).workflows
        assert [line["code"] for line in logged if line["event"] == "call"] == ["CANCELLED"]

    serve(tmp_path, scenario)


def test_a_message_beyond_the_limit_is_told_both_numbers(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        refused = await refusal(user.call("RunService/StartRun", workflowId="w", input="x" * MAX_REQUEST_BYTES))
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"vs. {MAX_REQUEST_BYTES}" in refused.message

    serve(tmp_path, scenario)


def test_one_that_is_to_stop_says_so_of_every_service_and_serves_on(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        health: Any = health_pb2_grpc.HealthStub(rig.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="towline.v1.RunService"))
        answers = aiter(watch)
        assert (await anext(answers)).status == SERVING
        rig.server.retire()
        assert [answer.status async for answer in answers] == [NOT_SERVING]
        for name in ("", *(service.full_name for service in SERVICES)):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == NOT_SERVING
        await rig.server.report_health("", serving=True)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        assert (await user.call("AuthService/GetMe")).user.id == user.id

    serve(tmp_path, scenario)


def test_the_health_of_what_nobody_knows_is_not_found_and_can_be_waited_for(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        health: Any = health_pb2_grpc.HealthStub(rig.channel)
        asked = health_pb2.HealthCheckRequest(service="towline.later")
        with pytest.raises(aio.AioRpcError) as unknown:
            await health.Check(asked)
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
        watch = health.Watch(asked)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        await rig.server.report_health("towline.later", serving=True)
        assert (await watch.read()).status == SERVING

    serve(tmp_path, scenario)


def test_a_stop_waits_for_no_stream(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        health: Any = health_pb2_grpc.HealthStub(rig.channel)
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", rig.channel))
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        described = reflection.ServerReflectionInfo()
        await described.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = await described.read()
        assert HEALTH_NAME in [each.name for each in listed.list_services_response.service]
        # Longer than the test may take: only streams that end by themselves let it pass.
        await rig.server.stop(grace_seconds=3600)
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.code() == grpc.StatusCode.OK
        assert await described.code() == grpc.StatusCode.UNAVAILABLE

    serve(tmp_path, scenario)
