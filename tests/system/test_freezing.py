"""A frozen run: what runs stands still, keeps its lease and its time, and goes on or ends as it is told."""

import asyncio
from pathlib import Path
from typing import Any

from processes import Rest, installed
from side_file import Execution, SideFile, eventually
from standing_still import whole_tree_is_still
from test_agent_faults import begin, gone, seen, states, two


async def freeze(rest: Rest, run_id: str, execution: Execution) -> dict[str, Any]:
    """Freezes a run and returns it once its execution stands still."""
    frozen = rest.post(f"/runs/{run_id}/pause", {"mode": "FREEZE"})
    await eventually(lambda: whole_tree_is_still(execution.pid))
    return frozen


def test_a_frozen_step_outlasts_its_timeout_and_goes_on_when_resumed(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_LEASE_SECONDS="2") as installation:
            nodes = [side.node("step", gated=True, timeoutMs=3000), side.node("next")]
            rest, run_id, events = begin(installation, nodes, ("step", "next"))
            execution = await side.begun("step")
            await seen(events, "STEP_STARTED", "step")
            frozen = await freeze(rest, run_id, execution)
            assert (frozen["state"], frozen["frozen"]) == ("PAUSED", True)
            side.open("step")
            witness = side.node("witness", gated=True, timeoutMs=3000, retryConfig={"maxAttempts": 1})
            _, _, of_witness = begin(installation, [witness])
            await seen(of_witness, "STEP_TIMED_OUT")  # it had as much time as the frozen step, and more than a lease
            assert whole_tree_is_still(execution.pid)
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
            await freeze(rest, run_id, execution)
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
            await freeze(rest, run_id, execution)
            await installation.kill("agent-1")
            await gone(execution)
            await installation.restart("agent-1")
            await seen(events, "STEP_ATTEMPT_LOST", "step")
            rest.post(f"/runs/{run_id}/resume")
            second = await side.begun("step", attempt=2)
            await seen(events, "STEP_STARTED", "step")
            await freeze(rest, run_id, second)
            rest.post(f"/runs/{run_id}/cancel")
            await seen(events, "RUN_CANCELLED")
            await gone(second)

    asyncio.run(scenario())
