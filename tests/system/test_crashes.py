"""kill -9 in the middle of a run: it still ends right, and no step is recorded twice."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import Installation, Rest, installed, until

STEPS = [f"s{i}" for i in range(6)]


def chain(side_file: Path) -> dict[str, Any]:
    """Each step appends its name and attempt to a file and takes a moment."""
    command = f'echo "$TOWLINE_NODE_ID $TOWLINE_ATTEMPT $$" >> {side_file}; sleep 0.3; echo "done $TOWLINE_NODE_ID"'
    return {
        "nodes": [{"id": step, "type": "SHELL", "config": {"command": command}} for step in STEPS],
        "edges": [{"from": a, "to": b} for a, b in itertools.pairwise(STEPS)],
    }


def begin(installation: Installation, side_file: Path) -> tuple[Rest, str]:
    rest = Rest(installation.http)
    rest.sign_in()
    workflow = rest.post("/workflows", {"name": "chain", "dag": chain(side_file)})
    return rest, rest.post(f"/workflows/{workflow['id']}/execute", {"input": {}})["id"]


def started(step: str) -> Callable[[dict[str, Any]], bool]:
    def is_it(event: dict[str, Any]) -> bool:
        return event["type"] == "STEP_STARTED" and event["nodeId"] == step

    return is_it


def executions(side_file: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in side_file.read_text().splitlines())


def successes(rest: Rest, run_id: str) -> Counter[str]:
    return Counter(event["nodeId"] for event in rest.events(run_id) if event["type"] == "STEP_SUCCEEDED")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_agent_killed_in_the_middle(tmp_path: Path) -> None:
    side_file = tmp_path / "executions"

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest, run_id = begin(installation, side_file)
            events = rest.events(run_id)
            await until(events, started("s2"))
            plugin = int(side_file.read_text().splitlines()[-1].split()[2])
            await installation.kill("agent-1")
            await installation.restart("agent-1")
            assert not alive(plugin)
            ended = await until(
                events, lambda event: event["type"].startswith("RUN_S") and event["type"] != "RUN_STARTED"
            )
            assert ended["type"] == "RUN_SUCCEEDED"
            assert successes(rest, run_id) == Counter(STEPS)
            attempts = rest.get(f"/runs/{run_id}/steps/s2")["attempts"]
            assert [attempt["state"] for attempt in attempts] == ["LOST", "SUCCEEDED"]
            assert executions(side_file) == Counter(STEPS) + Counter(["s2"])

    asyncio.run(scenario())


def test_control_plane_killed_in_the_middle(tmp_path: Path) -> None:
    side_file = tmp_path / "executions"

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest, run_id = begin(installation, side_file)
            await until(rest.events(run_id), started("s2"))
            await installation.kill("controlplane")
            await installation.restart("controlplane")
            seen = [event["type"] for event in await asyncio.to_thread(lambda: list(rest.events(run_id)))]
            assert seen[-1] == "RUN_SUCCEEDED"
            assert successes(rest, run_id) == Counter(STEPS)
            assert executions(side_file) == Counter(STEPS), "a step ran twice although its agent never went away"

    asyncio.run(scenario())


def test_logs_are_whole_after_the_control_plane_was_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            count = 2000
            command = f"for i in $(seq 1 {count}); do echo line $i; [ $((i % 20)) = 0 ] && sleep 0.01; done"
            dag = {"nodes": [{"id": "talk", "type": "SHELL", "config": {"command": command}}]}
            workflow = rest.post("/workflows", {"name": "talk", "dag": dag})
            run_id = rest.post(f"/workflows/{workflow['id']}/execute", {})["id"]
            lines = (data for name, data in rest.stream(f"/runs/{run_id}/logs?follow=true") if name != "end")
            await until(lines, lambda line: line["text"] == "line 100")
            await installation.kill("controlplane")
            await installation.restart("controlplane")
            await asyncio.to_thread(rest.insist, "GET", f"/runs/{run_id}")  # the gateway has to find it again
            await asyncio.to_thread(lambda: list(rest.events(run_id)))
            said = [data["text"] for name, data in rest.stream(f"/runs/{run_id}/logs?follow=true") if name != "end"]
            assert said == [f"line {i}" for i in range(1, count + 1)]

    asyncio.run(scenario())
