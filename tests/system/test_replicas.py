"""Two control planes on one database: what is started at one is run by an agent of the other, and watched here."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import PATIENCE_SECONDS, Installation, Rest, installed
from valkey_server import ValkeyServer

from towline_controlplane.composition import DOORBELL_HEALTH

DAG = {
    "nodes": [{"id": node, "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase"}} for node in ("a", "b")],
    "edges": [{"from": "a", "to": "b"}],
}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextlib.asynccontextmanager
async def two_replicas(folder: Path, **settings: str) -> AsyncGenerator[Installation]:
    """Yields an installation whose gateway knows one control plane, its agent the other."""
    async with installed(folder, net=None, agents=0, replicas=1, **settings) as installation:
        await installation.start_control_plane("other", **settings)
        await installation.start_agent(TOWLINE_SERVER=installation.control_planes["other"])
        yield installation


async def doorbells_are(status: int, installation: Installation) -> None:
    """Returns once the health services of all control planes say so of their doorbells."""
    request = health_pb2.HealthCheckRequest(service=DOORBELL_HEALTH)
    for address in installation.control_planes.values():
        async with aio.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            async for response in stub.Watch(request, timeout=PATIENCE_SECONDS):
                if response.status == status:
                    break


async def runs(rest: Rest, workflow_id: str) -> None:
    """Starts a run and follows it to its success."""
    run = await asyncio.to_thread(rest.post, f"/workflows/{workflow_id}/execute", {"input": {"text": "hello"}})
    events = await asyncio.to_thread(lambda: list(rest.events(run["id"])))
    assert events[-1]["type"] == "RUN_SUCCEEDED"
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))


async def workflow(rest: Rest) -> str:
    await asyncio.to_thread(rest.sign_in)
    return (await asyncio.to_thread(rest.post, "/workflows", {"name": "w", "dag": DAG}))["id"]


def test_replicas_ring_each_other_through_their_database(tmp_path: Path, postgres_url: str) -> None:
    async def scenario() -> None:
        async with two_replicas(tmp_path, DATABASE_URL=postgres_url) as installation:
            await doorbells_are(SERVING, installation)
            rest = Rest(installation.http)
            await runs(rest, await workflow(rest))

    asyncio.run(scenario())


@pytest.mark.timeout(300)
def test_replicas_go_on_without_redis_and_ring_again_with_it(
    tmp_path: Path, postgres_url: str, valkey: ValkeyServer
) -> None:
    async def scenario() -> None:
        async with two_replicas(tmp_path, DATABASE_URL=postgres_url, REDIS_URL=valkey.url) as installation:
            await doorbells_are(SERVING, installation)
            rest = Rest(installation.http)
            workflow_id = await workflow(rest)
            await runs(rest, workflow_id)
            await asyncio.to_thread(valkey.stop)
            await doorbells_are(NOT_SERVING, installation)
            await runs(rest, workflow_id)
            await asyncio.to_thread(valkey.start)
            await doorbells_are(SERVING, installation)
            await runs(rest, workflow_id)

    asyncio.run(scenario())


def test_a_wrong_redis_keeps_nobody_from_working(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, REDIS_URL="redis://:wrong-secret@127.0.0.1:1") as installation:
            await doorbells_are(NOT_SERVING, installation)
            rest = Rest(installation.http)
            await runs(rest, await workflow(rest))
        logs = installation.logs()
        assert logs.count("doorbell down") == 1
        assert "wrong-secret" not in logs

    asyncio.run(scenario())
