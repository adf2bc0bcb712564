"""What each duty does in one tick."""

from collections.abc import Callable

import pytest
from rig import LEASE_SECONDS, Rig, Scenario, failed

from towline_controlplane.bus import queue_topic
from towline_controlplane.errors import Unavailable
from towline_controlplane.ids import new_id
from towline_controlplane.loops.lease_expiry import LeaseExpiry
from towline_controlplane.loops.offer_expiry import OfferExpiry
from towline_controlplane.loops.retry_timer import RetryTimer
from towline_controlplane.model import RunState, StepState
from towline_controlplane.rooms import Claim
from towline_controlplane.store.database import Database
from towline_controlplane.submissions import Verdict


class FakeMonotonic:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lease_expiry(rig: Rig, monotonic: FakeMonotonic) -> LeaseExpiry:
    return LeaseExpiry(rig.database, rig.orchestrator, LEASE_SECONDS, monotonic)


def test_a_silent_agent_loses_its_attempt_which_another_runs(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        monotonic = FakeMonotonic()
        expiry = lease_expiry(rig, monotonic)
        await rig.start(["a"])
        agent, other = await rig.agent("one"), await rig.agent("two")
        (offer,) = await agent.pull()
        await agent.start(offer)
        assert await expiry.tick() == 0
        rig.clock.advance(LEASE_SECONDS)
        monotonic.now += LEASE_SECONDS
        assert await expiry.tick() == 1
        (again,) = await other.pull()
        assert (again.attempt.number, again.attempt.epoch) == (2, 2)
        assert await agent.report(offer) is Verdict.LEASE_LOST
        assert await other.report(again) is Verdict.ACCEPTED

    play(scenario)


@pytest.mark.parametrize("jump_seconds", [3600, -3600])
def test_a_jump_of_the_database_clock_expires_nobody(play: Callable[[Scenario], None], jump_seconds: float) -> None:
    async def scenario(rig: Rig) -> None:
        monotonic = FakeMonotonic()
        expiry = lease_expiry(rig, monotonic)
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.start(offer)
        await expiry.tick()
        rig.clock.advance(jump_seconds)
        monotonic.now += LEASE_SECONDS / 2
        assert await expiry.tick() == 0
        await agent.renew()
        monotonic.now += LEASE_SECONDS
        assert await expiry.tick() == 0
        assert await agent.report(offer) is Verdict.ACCEPTED

    play(scenario)


def test_a_control_plane_that_was_down_itself_waits_a_whole_lease(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.start(offer)
        rig.clock.advance(600)
        assert await lease_expiry(rig, FakeMonotonic()).tick() == 0
        assert await agent.report(offer) is Verdict.ACCEPTED

    play(scenario)


def test_a_control_plane_that_was_down_itself_lets_agents_confirm_late(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        monotonic = FakeMonotonic()
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        rig.clock.advance(60)
        expiry = OfferExpiry(rig.database, rig.orchestrator, 10, monotonic)
        monotonic.now = 9.9
        assert await expiry.tick() == 0
        await agent.start(offer)
        monotonic.now = 10
        assert await expiry.tick() == 0
        assert await agent.report(offer) is Verdict.ACCEPTED

    play(scenario)


def test_a_control_plane_without_its_database_lets_agents_confirm_late(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(rig: Rig) -> None:
        monotonic = FakeMonotonic()
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        rig.clock.advance(60)
        expiry = OfferExpiry(rig.database, rig.orchestrator, 10, monotonic)
        monotonic.now = 60
        with monkeypatch.context() as away:
            away.setattr(Database, "read", unreachable)
            with pytest.raises(Unavailable):
                await expiry.tick()
        monotonic.now = 69.9
        assert await expiry.tick() == 0
        assert await agent.report(offer) is Verdict.ACCEPTED

    play(scenario)


async def unreachable(database: Database, query: object) -> None:
    raise Unavailable("the database cannot be reached")


def test_an_agent_gets_nothing_once_its_lease_is_over_or_its_session_replaced(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        async def given(claim: Claim) -> int:
            return len((await rig.orchestrator.exchange((), (), claim))[1].offers)

        await rig.start(["a", "b"])
        agent = await rig.agent()
        claim = await agent.claim(want=1)
        rig.clock.advance(LEASE_SECONDS)
        assert await given(claim) == 0
        await agent.renew()
        assert await given(claim) == 1
        agent.session_id = new_id()
        await agent.open_session()
        assert await given(claim) == 0
        assert await given(await agent.claim(want=1)) == 1

    play(scenario)


def test_attempts_of_an_earlier_session_are_lost_at_once(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a", "b"])
        agent = await rig.agent()
        started, offered = await agent.pull()
        await agent.start(started)
        agent.session_id = new_id()
        await agent.open_session()
        expiry = lease_expiry(rig, FakeMonotonic())
        assert await expiry.withdraw_earlier_sessions(agent.id, agent.session_id) == 2
        assert await expiry.tick() == 0
        again = {offer.step.node_id: offer.attempt.number for offer in await agent.pull()}
        assert again == {started.step.node_id: 2, offered.step.node_id: 2}, "the offer may have been taken up"

    play(scenario)


def test_an_unsafe_step_is_parked_when_its_agent_is_lost(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start([{"id": "a", "sideEffects": "UNSAFE"}])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.start(offer)
        agent.session_id = new_id()
        await agent.open_session()
        await lease_expiry(rig, FakeMonotonic()).tick()
        assert (await rig.steps(run.id))["a"].state is StepState.PARKED
        assert await agent.pull() == []

    play(scenario)


def test_a_step_that_kills_its_agents_fails_in_the_end(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start([{"id": "a", "retryConfig": {"maxLost": 2}}])
        agent = await rig.agent()
        for number in (1, 2, 3):
            (offer,) = await agent.pull()
            assert offer.attempt.number == number
            await agent.start(offer)
            agent.session_id = new_id()
            await agent.open_session()
            await lease_expiry(rig, FakeMonotonic()).tick()
        ended = await rig.run(run.id)
        assert ended.state is RunState.FAILED
        assert ended.error is not None
        assert ended.error.code == "AGENT_LOST"

    play(scenario)


def test_the_retry_timer_rings_when_a_step_is_due(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start([{"id": "a", "retryConfig": {"backoffMs": 1000}}])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.report(offer, failed("a"))
        timer = RetryTimer(rig.database, rig.doorbell)
        async with rig.doorbell.listen([], map(queue_topic, await rig.queue_ids())) as bell:
            assert await timer.tick() == pytest.approx(0.5)
            assert not await bell.wait(0)
            rig.clock.advance(0.5)
            await timer.tick()
            assert await bell.wait(10)

    play(scenario)
