"""Several control planes on one database: what each of them promises holds for all of them together."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from rig import Rig, control_plane, failed, serving

from towline_controlplane.errors import IdempotencyKeyReused
from towline_controlplane.model import FailureClass, RunState
from towline_controlplane.submissions import Verdict

Scenario = Callable[[Rig, Rig], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path, postgres_url: str) -> Callable[[Scenario], None]:
    async def beside(scenario: Scenario) -> None:
        async with control_plane(tmp_path, postgres_url) as one, serving(postgres_url, one.clock) as other:
            await scenario(one, other)

    return lambda scenario: asyncio.run(beside(scenario))


def test_racing_starts_with_one_key_make_one_run(play: Callable[[Scenario], None]) -> None:
    async def scenario(one: Rig, other: Rig) -> None:
        version = await one.workflow(["a"])
        for key in "abcdefgh":
            started = await asyncio.gather(
                *(rig.start_version(version, key, "digest") for _ in range(4) for rig in (one, other))
            )
            assert len({run.id for run in started}) == 1
        with pytest.raises(IdempotencyKeyReused):
            await other.start_version(version, "a", "another digest")

    play(scenario)


def test_agents_of_all_share_a_fan_out_without_doubling_a_step(play: Callable[[Scenario], None]) -> None:
    middle = [f"m{i}" for i in range(60)]
    edges = [("root", m) for m in middle] + [(m, "join") for m in middle]
    executed: Counter[str] = Counter()

    async def scenario(one: Rig, other: Rig) -> None:
        run = await one.start(["root", *middle, "join"], edges)

        async def work(rig: Rig, name: str) -> None:
            agent = await rig.agent(name)
            while (await rig.run(run.id)).state in (RunState.PENDING, RunState.RUNNING):
                offers = await agent.pull(3)
                executed.update(offer.step.node_id for offer in offers)
                await asyncio.gather(*(agent.report(offer) for offer in offers))

        await asyncio.gather(*(work(rig, f"agent-{n}{k}") for n, rig in enumerate((one, other)) for k in range(3)))
        assert (await one.run(run.id)).state is RunState.SUCCEEDED

    play(scenario)
    assert executed == Counter(["root", *middle, "join"])


def test_of_two_reports_of_one_attempt_at_different_ones_the_first_counts(play: Callable[[Scenario], None]) -> None:
    async def scenario(one: Rig, other: Rig) -> None:
        for _ in range(5):
            run = await one.start(["a"])
            agent = await one.agent(f"agent of {run.id}")
            [offer] = await agent.pull()
            elsewhere = await other.agent(f"same as {run.id}")
            elsewhere.id, elsewhere.session_id = agent.id, agent.session_id
            verdicts = await asyncio.gather(
                agent.report(offer), elsewhere.report(offer, failed("a", FailureClass.PERMANENT))
            )
            assert sorted(verdicts) == [Verdict.ACCEPTED, Verdict.ALREADY_REPORTED]
            ended = RunState.SUCCEEDED if verdicts[0] is Verdict.ACCEPTED else RunState.FAILED
            assert (await one.run(run.id)).state is ended

    play(scenario)


def test_a_pause_at_one_closes_the_gate_of_all(play: Callable[[Scenario], None]) -> None:
    async def scenario(one: Rig, other: Rig) -> None:
        run = await one.start(["a"])
        agent = await other.agent()
        await one.orchestrator.pause(run.id, None)
        assert await agent.pull() == []
        await one.orchestrator.resume(run.id, None)
        assert len(await agent.pull()) == 1

    play(scenario)
