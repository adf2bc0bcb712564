"""No agent is given more than its slots, whatever it asks for and however often, and nothing once drained (I19)."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from rig import FakeAgent, Rig, Scenario

from towline_controlplane.store import agents

Play = Callable[[Scenario], None]


@pytest.mark.parametrize(("want", "expected"), [(1, 1), (3, 3), (100, 3)])
def test_an_agent_gets_no_more_than_its_slots_by_the_count_of_the_server(play: Play, want: int, expected: int) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start([f"n{number}" for number in range(9)])
        agent = await rig.agent(slots=3)
        assert len(await agent.pull(want)) == expected
        assert len(await agent.pull(100)) == 3 - expected
        assert await agent.pull(1) == []

    play(scenario)


def test_claims_side_by_side_share_the_slots(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start([f"n{number}" for number in range(30)])
        asking = [await rig.agent("a", slots=4), await rig.agent("b", slots=2)]
        pulled = await asyncio.gather(*(agent.pull(3) for agent in asking * 4))
        given = {agent.id: [o for offers in pulled[n::2] for o in offers] for n, agent in enumerate(asking)}
        assert {agent_id: len(offers) for agent_id, offers in given.items()} == {"id-of-a": 4, "id-of-b": 2}

    play(scenario)


def test_a_report_frees_the_slot_for_the_offers_in_its_own_answer(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a", "b", "c"])
        agent = await rig.agent(slots=1)
        (held,) = await agent.pull()
        _, served = await rig.orchestrator.exchange((), [agent.result(held)], await agent.claim())
        assert [offer.step.node_id for offer in served.offers] == ["b"]
        assert served.room == 1

    play(scenario)


def test_a_lapsed_offer_holds_no_slot(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a", "b"])
        agent = await rig.agent(slots=1)
        (offer,) = await agent.pull()
        await agent.report(offer)
        assert [each.step.node_id for each in await agent.pull()] == ["b"]

    play(scenario)


async def drain(rig: Rig, agent: FakeAgent, *, drained: bool = True) -> None:
    await rig.database.write(lambda tx: agents.set_drained(tx, agent.id, drained=drained))


def test_a_drained_agent_gets_nothing_and_what_it_runs_goes_on(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a", "b", "c"], [("a", "b")])
        drained, other = await rig.agent("drained"), await rig.agent("other")
        (held,) = await drained.pull(1)
        await drain(rig, drained)
        assert (await rig.orchestrator.exchange((), (), await drained.claim()))[1].room == 0
        assert await drained.report(held) == "ACCEPTED"
        assert await drained.pull() == []
        assert len(await other.pull()) == 2
        await rig.start(["d"])
        await drain(rig, drained, drained=False)
        assert [offer.step.node_id for offer in await drained.pull()] == ["d"]

    play(scenario)


def test_an_earlier_session_gets_nothing(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        earlier = replace(await agent.claim(), session_id="session-before")
        _, served = await rig.orchestrator.exchange((), (), earlier)
        assert (served.offers, served.room) == ((), 0)
        assert len(await agent.pull()) == 1

    play(scenario)
