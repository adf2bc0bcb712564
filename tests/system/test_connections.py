"""Connections that end all the time, and a control plane that says it is to stop: nobody who works notices."""

import asyncio
import itertools
import os
import signal
from pathlib import Path
from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import Rest, installed

from towline_sdk.client import Client

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NODES = [f"n{number}" for number in range(2)]
DAG = {
    "nodes": [{"id": node, "type": "SHELL", "config": {"command": f"echo {node}; sleep 2"}} for node in NODES],
    "edges": [{"from": first, "to": second} for first, second in itertools.pairwise(NODES)],
}


def test_a_run_goes_on_while_connections_are_replaced_under_it(tmp_path: Path) -> None:
    # Shorter than a step, than a Pull, than the streams of logs and events: all of them are cut off.
    ages: dict[str, Any] = {"TOWLINE_CONNECTION_AGE_SECONDS": "0.5", "TOWLINE_CONNECTION_GRACE_SECONDS": "1"}

    async def scenario() -> None:
        async with installed(tmp_path, **ages) as installation:
            rest = Rest(installation.http)
            await asyncio.to_thread(rest.sign_in)
            workflow = await asyncio.to_thread(rest.post, "/workflows", {"name": "w", "dag": DAG})
            run = await asyncio.to_thread(rest.post, f"/workflows/{workflow['id']}/execute", {})

            async def lines() -> list[str]:
                async with Client(installation.grpc, token=rest.token) as client:
                    return [line.text async for line in client.runs.logs(run["id"], follow=True) if line.text]

            async def watched() -> list[Any]:
                async with Client(installation.grpc, token=rest.token) as client:
                    return [event async for event in client.runs.watch(run["id"])]

            def over_rest() -> list[int]:
                return [event["sequence"] for event in rest.events(run["id"])]

            events, logged, received = await asyncio.gather(watched(), lines(), asyncio.to_thread(over_rest))
            assert received == list(range(1, len(events) + 1))
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert logged == NODES
            steps = (await asyncio.to_thread(rest.get, f"/runs/{run['id']}/steps"))["steps"]
            assert [(step["state"], step["attempt"]) for step in steps] == [("SUCCEEDED", 1)] * len(NODES)

    asyncio.run(scenario())


def test_one_that_is_told_to_stop_serves_on_while_its_health_turns_callers_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, agents=0, TOWLINE_DRAIN_SECONDS="600") as installation:
            rest = Rest(installation.http)
            await asyncio.to_thread(rest.sign_in)
            pid = installation.parts["controlplane"].pid
            assert pid is not None
            async with aio.insecure_channel(installation.grpc) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                watch = aiter(health.Watch(health_pb2.HealthCheckRequest()))
                assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
                os.kill(pid, signal.SIGTERM)
                assert (await anext(watch)).status == NOT_SERVING
            assert (await asyncio.to_thread(rest.get, "/auth/me"))["email"] == "ada@example.com"
            await installation.kill("controlplane")

    asyncio.run(scenario())
