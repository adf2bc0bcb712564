"""A frozen run: what runs stands still, keeps its lease and its time, and goes on or ends as it is told."""

import asyncio
from pathlib import Path
from typing import Any

import psutil
from processes import Rest, installed
from side_file import Execution, SideFile, eventually
from test_agent_faults import begin, gone, seen, states, two


def stands_still(execution: Execution) -> bool:
    main = psutil.Process(execution.pid)
    return all(each.status() == psutil.STATUS_STOPPED for each in (main, *main.children(recursive=True)))


def pause(rest: Rest, run_id: str, mode: str) -> dict[str, Any]:
    return rest.post(f"/runs/{run_id}/pause", {"mode": mode})


def test_a_frozen_step_outlasts_its_timeout_and_goes_on_when_resumed(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_LEASE_SECONDS="2") as installation:
            nodes = [side.node("step", gated=True, timeoutMs=3000), side.node("next")]
            rest, run_id, events = begin(installation, nodes, ("step", "next"))
            execution = await side.begun("step")
            await seen(events, "STEP_STARTED", "step")
            frozen = pause(rest, run_id, "FREEZE")
            assert (frozen["state"], frozen["frozen"]) == ("PAUSED", True)
            await eventually(lambda: stands_still(execution))
            side.open("step")
            await asyncio.sleep(4)  # longer than the lease and the timeout
            assert stands_still(execution)
            assert states(rest, run_id, "step") == ["RUNNING"]
            assert "frozen" in rest.get(f"/runs/{run_id}/steps/step/explain")["verdicts"][0]["message"]
            assert not rest.post(f"/runs/{run_id}/resume")["frozen"]
            await seen(events, "RUN_SUCCEEDED")
            side.check(rest, run_id)

    asyncio.run(scenario())


def test_a_pause_that_drains_lets_what_is_frozen_go_on(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_LEASE_SECONDS="2") as installation:
            rest, run_id, events = begin(installation, two(side), ("step", "next"))
            execution = await side.begun("step")
            pause(rest, run_id, "FREEZE")
            await eventually(lambda: stands_still(execution))
            side.open("step")
            drained = rest.post(f"/runs/{run_id}/pause")
            assert (drained["state"], drained["frozen"]) == ("PAUSED", False)
            await seen(events, "STEP_SUCCEEDED", "step")
            assert rest.get(f"/runs/{run_id}/steps/next")["state"] == "READY"
            rest.post(f"/runs/{run_id}/resume")
            await seen(events, "RUN_SUCCEEDED")
            side.check(rest, run_id)

    asyncio.run(scenario())


def test_a_frozen_run_is_cancelled_and_one_whose_agent_dies_leaves_nothing(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_LEASE_SECONDS="2") as installation:
            rest, run_id, events = begin(installation, two(side), ("step", "next"))
            execution = await side.begun("step")
            pause(rest, run_id, "FREEZE")
            await eventually(lambda: stands_still(execution))
            await installation.kill("agent-1")
            await gone(execution)
            await installation.restart("agent-1")
            await seen(events, "STEP_ATTEMPT_LOST", "step")
            rest.post(f"/runs/{run_id}/resume")
            second = await side.begun("step", attempt=2)
            await seen(events, "STEP_STARTED", "step")
            pause(rest, run_id, "FREEZE")
            await eventually(lambda: stands_still(second))
            rest.post(f"/runs/{run_id}/cancel")
            await seen(events, "RUN_CANCELLED")
            await gone(second)

    asyncio.run(scenario())
