"""Whose log bytes count, and that a batch of chunks is answered one by one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import replace

from rig import LEASE_SECONDS, FakeAgent, Rig, Scenario

from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.handouts import StepOffer
from towline_controlplane.log_writer import LogChunk, LogWriter
from towline_controlplane.loops.lease_expiry import LeaseExpiry
from towline_controlplane.model import Failure, FailureClass, Lease, StepState
from towline_controlplane.store import logs
from towline_controlplane.submissions import ExpireOffer

LINE = b"1 O- hello\n"


@contextlib.asynccontextmanager
async def writing(rig: Rig) -> AsyncGenerator[LogWriter, None]:
    writer = LogWriter(rig.database, rig.doorbell, rig.orchestrator.confirm)
    running = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        running.cancel()


def chunk(agent: FakeAgent, offer: StepOffer, offset: int = 0) -> LogChunk:
    return LogChunk(agent.lease(offer), offset, LINE, final=False)


def test_a_batch_is_answered_chunk_by_chunk(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "b"])
        agent = await rig.agent()
        a, b = await agent.pull()
        stale = chunk(agent, a)
        stale = replace(stale, lease=replace(stale.lease, epoch=7))
        async with writing(rig) as writer:
            chunks = [chunk(agent, a), stale, chunk(agent, b), chunk(agent, a, len(LINE)), chunk(agent, b, 99)]
            answers = await asyncio.gather(*[writer.append(each) for each in chunks])
        assert answers == [len(LINE), None, len(LINE), 2 * len(LINE), len(LINE)]
        sizes = await rig.database.read(lambda tx: logs.load_sizes(tx, [(run.id, "a"), (run.id, "b")]))
        assert {key[1]: size.size for key, size in sizes.items()} == {"a": 2 * len(LINE), "b": len(LINE)}

    play(scenario)


def test_a_reported_attempt_takes_the_rest_of_its_log(play: Callable[[Scenario], None]) -> None:
    left = EndAttempt("b", Outcome.LOST, "left", failure=Failure(FailureClass.TRANSIENT, "AGENT_LOST", "shut down"))

    async def scenario(rig: Rig) -> None:
        await rig.start(["a", "b"])
        agent = await rig.agent()
        a, b = await agent.pull()
        await agent.report(a)
        await agent.report(b, left)
        async with writing(rig) as writer:
            assert await writer.append(chunk(agent, a)) == len(LINE)
            assert await writer.append(chunk(agent, b)) == len(LINE)

    play(scenario)


def test_the_log_of_an_offer_confirms_it(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        async with writing(rig) as writer:
            assert await writer.append(chunk(agent, offer)) == len(LINE)
        rig.clock.advance(60)
        assert await rig.orchestrator.settle([ExpireOffer(run.id, "a")]) == 0
        assert (await rig.steps(run.id))["a"].state is StepState.LEASED

    play(scenario)


def test_chunks_that_come_during_the_confirmation_keep_their_order(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        asked, allowed = asyncio.Event(), asyncio.Event()

        async def confirm(leases: Iterable[Lease]) -> None:
            asked.set()
            await rig.orchestrator.confirm(leases)
            await allowed.wait()

        async with writing(rig) as writer:
            writer.confirm = confirm
            first = asyncio.create_task(writer.append(chunk(agent, offer)))
            await asked.wait()
            await rig.orchestrator.confirm([agent.lease(offer)])
            second = asyncio.create_task(writer.append(chunk(agent, offer, len(LINE))))
            await asyncio.sleep(0)
            allowed.set()
            assert await asyncio.gather(first, second) == [len(LINE), 2 * len(LINE)]

    play(scenario)


def test_an_offer_that_went_back_takes_no_log(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a"])
        agent, other = await rig.agent("one"), await rig.agent("two")
        (offer,) = await agent.pull()
        rig.clock.advance(60)
        assert await rig.orchestrator.settle([ExpireOffer(run.id, "a")]) == 1
        async with writing(rig) as writer:
            assert await writer.append(chunk(agent, offer)) is None
            (again,) = await other.pull()
            assert again.attempt.number == offer.attempt.number
            assert await writer.append(chunk(other, again)) == len(LINE)
            assert await writer.append(chunk(agent, offer)) is None

    play(scenario)


def test_agents_are_asked_to_gather_while_more_waits_than_a_commit_takes(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        async with writing(rig) as writer:
            assert await writer.append(chunk(agent, offer)) == len(LINE)
            assert writer.interval_seconds == 0
            appends = [asyncio.create_task(writer.append(chunk(agent, offer))) for _ in range(200)]
            await asyncio.sleep(0)
            assert writer.interval_seconds > 0
            await asyncio.gather(*appends)
            assert writer.interval_seconds == 0

    play(scenario)


def test_a_withdrawn_attempt_takes_no_more(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.start(offer)
        expiry = LeaseExpiry(rig.database, rig.orchestrator, LEASE_SECONDS)
        assert await expiry.withdraw_earlier_sessions(agent.id, "another-session") == 1
        async with writing(rig) as writer:
            assert await writer.append(chunk(agent, offer)) is None

    play(scenario)
