"""What agents are given when steps take more than a slot, or much memory; and that large steps have their turn."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rig import FakeAgent, Rig, control_plane, serving

from towline_controlplane.handouts import StepOffer
from towline_controlplane.saving import Saving
from towline_controlplane.store import agents


def node(name: str, weight: int = 1, memory_mb: int = 0, **fields: object) -> Mapping[str, object]:
    return {"id": name, "weight": weight, "memoryLimitMb": memory_mb, **fields}


def names(offers: Sequence[StepOffer]) -> list[str]:
    return sorted(offer.step.node_id for offer in offers)


async def taken(rig: Rig, agent: FakeAgent) -> int:
    listed = await rig.database.read(lambda tx: agents.find_agent(tx, agent.id))
    assert listed is not None
    return listed.taken


def test_the_weights_of_what_an_agent_holds_are_within_its_slots(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            await rig.start([node("a", 2), node("b", 2), node("c"), node("d")])
            agent = await rig.agent(slots=4)
            first = await agent.pull(3)
            second = await agent.pull(8)
            assert sum(offer.attempt.weight for offer in first) <= 3
            assert sum(offer.attempt.weight for offer in (*first, *second)) == 4 == await taken(rig, agent)
            assert await agent.pull(8) == []
            for offer in (*first, *second):
                await agent.report(offer)
            assert sum(offer.attempt.weight for offer in await agent.pull(8)) == 2

    asyncio.run(scenario())


def test_what_does_not_fit_does_not_hold_up_what_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            await rig.start([*(node(f"heavy-{n}", 4) for n in range(20)), node("light")])
            agent = await rig.agent(slots=3)
            assert names(await agent.pull()) == ["light"]

    asyncio.run(scenario())


def test_an_agent_that_asks_for_too_little_is_told_to_ask_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            await rig.start([node("heavy", 3)])
            agent = await rig.agent(slots=3)
            assert (await agent.ask(2)).ask_again
            assert not (await agent.ask(3)).ask_again
            assert not (await agent.ask(1)).ask_again

    asyncio.run(scenario())


def test_a_heavy_step_has_its_turn_and_only_one_agent_saves_up_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            rig.orchestrator.saving = Saving(patience_seconds=0.0)
            await rig.start([node(f"light-{n}") for n in range(40)])
            saver, other = await rig.agent("saver", slots=2), await rig.agent("other", slots=2)
            held = [(each, offer) for each in (saver, other) for offer in await each.pull()]
            assert len(held) == 4
            await rig.start([node("heavy", 2)])
            assert await saver.pull() == [] == await other.pull()
            own = [offer for each, offer in held if each is saver]
            await saver.report(own[0])
            await other.report(next(offer for each, offer in held if each is other))
            assert await saver.pull() == []
            assert names(await other.pull()) != []
            await saver.report(own[1])
            assert names(await saver.pull()) == ["heavy"]

    asyncio.run(scenario())


def test_a_heavy_step_has_its_turn_whichever_replicas_the_agents_ask(tmp_path: Path, postgres_url: str) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path, postgres_url) as one, serving(postgres_url, one.clock) as other:
            for rig in (one, other):
                rig.orchestrator.saving = Saving(patience_seconds=1.0, monotonic=itertools.count().__next__)
            await one.start([node(f"light-{n}") for n in range(60)])
            agents_at = [[each, FakeAgent(other, each.id, 2, each.session_id)] for each in await two_agents(one)]
            held = [[(first, offer) for offer in await first.pull()] for first, _ in agents_at]
            await other.start([node("heavy", 2)])
            idle: list[int] = []
            for turn in range(20):
                for number, places in enumerate(agents_at):
                    if held[number]:
                        place, offer = held[number].pop(0)
                        await place.report(offer)
                    place = places[(turn + number) % 2]
                    held[number] += [(place, offer) for offer in await place.pull()]
                given = [offer for each in held for _, offer in each]
                if "heavy" in names(given):
                    break
                idle.append(sum(2 - len(each) for each in held))
                one.clock.advance(0.6)
            else:
                pytest.fail("the heavy step was starved")
            assert sum(idle) <= 2, "both agents stood idle for one step"

    asyncio.run(scenario())


async def two_agents(rig: Rig) -> list[FakeAgent]:
    return [await rig.agent(name, slots=2) for name in ("agent-1", "agent-2")]


def test_what_is_offered_fits_into_the_memory_that_is_free(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            await rig.start([node(name, memory_mb=600) for name in "abc"])
            agent = await rig.agent(slots=8)
            first = await agent.pull(free_memory_mb=1300)
            assert len(first) == 2
            assert await agent.pull(free_memory_mb=1300) == []  # neither has been started: both may still take it
            for offer in first:
                await agent.start(offer)
            assert len(await agent.pull(free_memory_mb=700)) == 1

    asyncio.run(scenario())


def test_an_agent_that_holds_nothing_is_given_what_fits_it_in_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            await rig.start([node("a", memory_mb=600), node("b", memory_mb=600)])
            agent = await rig.agent(slots=8)
            assert len(await agent.pull(free_memory_mb=100)) == 1
            assert await agent.pull(free_memory_mb=100) == []

    asyncio.run(scenario())


def test_a_disabled_or_unschedulable_agent_is_given_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path) as rig:
            await rig.start(["a"])
            agent = await rig.agent()
            await rig.database.write(lambda tx: agents.set_disabled(tx, agent.id, disabled=True))
            assert await agent.pull() == []
            await rig.database.write(lambda tx: agents.set_disabled(tx, agent.id, disabled=False))
            await agent.open_session(unschedulable="its disk is full")
            assert await agent.pull() == []
            await agent.open_session()
            assert names(await agent.pull()) == ["a"]

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_parallel_pulls_at_two_replicas_stay_within_the_slots(tmp_path: Path, postgres_url: str, seed: int) -> None:
    async def scenario() -> None:
        async with control_plane(tmp_path, postgres_url) as one, serving(postgres_url, one.clock) as other:
            weights = [1 + (seed + n) % 3 for n in range(30)]
            await one.start([node(f"n{n}", weight) for n, weight in enumerate(weights)])
            agent = await one.agent(slots=7)
            beside = FakeAgent(other, agent.id, agent.slots, agent.session_id)
            for _ in range(4):
                asked = await asyncio.gather(*(each.pull(7) for _ in range(4) for each in (agent, beside)))
                given = [offer for offers in asked for offer in offers]
                assert 5 <= sum(offer.attempt.weight for offer in given) == await taken(one, agent) <= 7
                await asyncio.gather(*(agent.report(offer) for offer in given))

    asyncio.run(scenario())
