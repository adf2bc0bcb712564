"""Two hundred agents lose their control planes at once: they come back spread out, and nothing runs twice (F18)."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from fleet import Sent, fleet
from rig import FakeClock, Rig

from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.composition import Parts
from towline_controlplane.model import EventType, RunState, StepState

AGENTS = 200
STEPS = 240
AWAY_SECONDS = 12.0
"""Less than a lease, so that what runs stays with whoever runs it."""
LARGEST_SHARE = 0.15
"""Of the fleet, in any tenth of a second: a lockstep would have all of it in one."""


def tenths(sent: Iterable[Sent]) -> Counter[int]:
    """Returns how many messages there were in each tenth of a second that has any."""
    return Counter(int(each.at * 10) for each in sent)


@pytest.mark.parametrize(("kind", "replicas"), [("sqlite", 1), ("postgres", 2)])
def test_a_fleet_that_lost_its_control_planes_comes_back_spread_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str, replicas: int
) -> None:
    url = request.getfixturevalue(f"{kind}_url")

    async def scenario() -> None:
        async with fleet(tmp_path, url, monkeypatch, size=AGENTS, replicas=replicas) as (it, planes):
            plays, clock = it.plays, it.clock
            nodes = [f"n{number}" for number in range(STEPS)]
            run_id = (await rig_of(planes.running[0]).start(nodes)).id
            await it.until(lambda: len(plays.running) == AGENTS)
            await it.passed(2.5)  # longer than the interval of Syncs: all starts are acknowledged

            # All are cut off at once. Half of what runs ends meanwhile; nobody hears of it.
            lost_at = clock.now
            await planes.lose()
            await it.passed(AWAY_SECONDS / 2)
            plays.end(*list(plays.running)[: AGENTS // 2])
            await it.passed(AWAY_SECONDS / 2)
            away = [each for each in it.tally.sent if each.at > lost_at]
            assert not any(each.answered for each in away)
            assert len({each.agent for each in away}) == AGENTS
            tries = Counter((each.agent, each.method) for each in away)
            assert max(tries.values()) <= AWAY_SECONDS + 4, "an agent tries more often than once a second"
            settled = [each for each in away if each.method == "Sync" and each.at > lost_at + AWAY_SECONDS / 2]
            assert max(tenths(settled).values()) < AGENTS * LARGEST_SHARE, tenths(settled)

            # They come back: each once, within the longest wait between two tries, and not in step.
            await planes.start()
            await it.connected()
            back_at = clock.now
            await it.passed(2.0)
            back = [each for each in it.tally.sent if each.at > back_at]
            first = {each.agent: each for each in reversed(back) if each.method == "Sync"}
            assert all(each.answered for each in back), "a control plane that was there did not answer"
            assert len(first) == AGENTS
            assert max(tenths(first.values()).values()) < AGENTS * LARGEST_SHARE, tenths(first.values())

            # What they had done is reported, what they had not goes on, and nothing was done twice.
            plays.all_end = True
            plays.end(*plays.running)
            rig = rig_of(planes.running[-1])
            await it.until(lambda: len(plays.executions) == STEPS)
            while (await rig.run(run_id)).state is not RunState.SUCCEEDED:
                await it.passed(0.1)
            assert set(plays.executions.values()) == {1}
            steps = await rig.steps(run_id)
            assert {(step.state, step.attempt) for step in steps.values()} == {(StepState.SUCCEEDED, 1)}
            kinds = Counter(event.type for event in await rig.events(run_id))
            assert kinds[EventType.STEP_OFFERED] == kinds[EventType.STEP_SUCCEEDED] == STEPS
            reports = [each for each in it.tally.sent if each.method == "Report" and each.answered]
            assert len(reports) <= STEPS

    asyncio.run(scenario())


def rig_of(parts: Parts) -> Rig:
    """Returns a control plane as its tests see it."""
    agents = parts.agents
    assert isinstance(agents.doorbell, InProcessDoorbell)
    return Rig(agents.database, agents.doorbell, agents.orchestrator, FakeClock())
