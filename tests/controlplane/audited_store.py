"""A store in which much has happened, for tests that look at what is in it."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from rig import FakeAgent, Rig, failed, succeeded

from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.handouts import StepOffer
from towline_controlplane.log_writer import LogChunk, LogWriter
from towline_controlplane.loops.admission import Admission
from towline_controlplane.loops.deadlines import Deadlines
from towline_controlplane.loops.offer_expiry import OfferExpiry
from towline_controlplane.model import FailureClass
from towline_controlplane.store import enrollment_tokens
from towline_controlplane.tokens import fingerprint

RETRY = {"retryConfig": {"maxAttempts": 2, "backoffMs": 1000, "maxLost": 0}}


@dataclass(frozen=True, slots=True)
class Sample:
    """A store in which much has happened, and its runs by what became of them."""

    folder: Path
    runs: dict[str, str]

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copy(self.folder / "towline.db", folder / "towline.db"))


async def live(rig: Rig) -> dict[str, str]:
    agent = await rig.agent("busy")
    await rig.database.write(lambda tx: enrollment_tokens.insert(tx, fingerprint("token"), 1, tx.now + 1))
    return {
        "succeeded": await a_run_of_all_edges(rig, agent),
        "retried": await a_run_that_was_retried(rig, agent),
        "failed": await a_run_that_failed(rig, agent),
        "resumed": await a_run_that_was_resumed(rig, agent),
        "again": await a_run_that_was_started_over(rig, agent),
        "overdue": await a_run_past_its_deadline(rig, agent),
        "untaken": await a_run_that_nobody_took(rig, agent),
        "lapsed": await a_run_whose_offer_lapsed(rig, agent),
        "parked": await a_run_that_is_parked(rig, agent),
        "running": await a_run_under_way(rig, agent),
        "cancelling": await a_run_being_cancelled(rig, agent),
        "paused": await a_run_that_is_paused(rig),
        "limited": await a_run_in_the_only_slot(rig),
        "waiting": (await rig.start(["a"])).id,
    }


async def a_run_of_all_edges(rig: Rig, agent: FakeAgent) -> str:
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    condition = {"type": "EXPRESSION", "expression": "nodes.a.output.n > 1"}
    version = await rig.workflow(["a", "b", "c", "d"], edges, {("a", "c"): condition})
    run = await rig.start_version(version, key="key", digest="digest")
    (offer,) = await agent.pull()
    await agent.start(offer)
    await write_log(rig, agent, offer)
    await agent.report(offer, succeeded("a", '{"n":2}'))
    for _ in range(2):
        for following in await agent.pull():
            await agent.report(following)
    return run.id


async def write_log(rig: Rig, agent: FakeAgent, offer: StepOffer) -> None:
    writer = LogWriter(rig.database, InProcessDoorbell(), rig.orchestrator.confirm)
    writing = asyncio.create_task(writer.run())
    for offset, data in ((0, b"one\n"), (4, b"two\n")):
        await writer.append(LogChunk(agent.lease(offer), offset, data, final=offset == 4))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def a_run_that_was_retried(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start([{"id": "a", **RETRY}])
    (offer,) = await agent.pull()
    await agent.report(offer, failed("a"))
    rig.clock.advance(60)
    (offer,) = await agent.pull()
    await agent.report(offer)
    return run.id


async def a_run_that_failed(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start(["a", "b"], [("a", "b")])
    (offer,) = await agent.pull()
    await agent.report(offer, failed("a", FailureClass.PERMANENT))
    return run.id


async def a_run_that_was_resumed(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start(["a"])
    await rig.orchestrator.pause(run.id, None)
    await rig.orchestrator.resume(run.id, None)
    (offer,) = await agent.pull()
    await agent.report(offer)
    return run.id


async def a_run_that_was_started_over(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start([{"id": "a", "retryConfig": {"maxAttempts": 1}}, "b"], [("a", "b")])
    for end in (failed("a"), succeeded("a"), succeeded("b")):
        (offer,) = await agent.pull()
        await agent.report(offer, end)
        if end.failure:
            await rig.orchestrator.retry(run.id, None)
    return run.id


async def a_run_past_its_deadline(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start_version(await rig.workflow(["a", "b"], [("a", "b")], timeoutMs=60_000))
    (offer,) = await agent.pull()
    rig.clock.advance(60)
    await Deadlines(rig.database, rig.orchestrator).tick()
    await agent.report(offer)
    return run.id


async def a_run_that_nobody_took(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start([{"id": "a", "queueTimeoutMs": 120_000}])
    await agent.pull()
    rig.clock.advance(60)
    await OfferExpiry(rig.database, rig.orchestrator, 0).tick()
    rig.clock.advance(120)
    await Deadlines(rig.database, rig.orchestrator).tick()
    return run.id


async def a_run_in_the_only_slot(rig: Rig) -> str:
    version = await rig.workflow(["a"], output="${{ nodes.a.state }}", concurrency={"limit": 1})
    run, _ = await rig.start_version(version), await rig.start_version(version)
    await Admission(rig.database, rig.orchestrator).tick()
    await rig.orchestrator.pause(run.id, None)
    return run.id


async def a_run_whose_offer_lapsed(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start(["a"])
    await agent.pull()
    rig.clock.advance(60)
    await OfferExpiry(rig.database, rig.orchestrator, 0).tick()
    await rig.orchestrator.pause(run.id, None)
    return run.id


async def a_run_that_is_parked(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start([{"id": "a", "sideEffects": "UNSAFE", "retryConfig": {"maxAttempts": 3}}])
    (offer,) = await agent.pull()
    await agent.report(offer, failed("a"))
    rig.clock.advance(60)
    await agent.pull()
    rig.clock.advance(60)
    await OfferExpiry(rig.database, rig.orchestrator, 0).tick()
    return run.id


async def a_run_under_way(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start(["a", "b", "c"], [("a", "b"), ("b", "c")])
    (offer,) = await agent.pull()
    await agent.report(offer)
    (offer,) = await agent.pull()
    await agent.start(offer)
    return run.id


async def a_run_being_cancelled(rig: Rig, agent: FakeAgent) -> str:
    run = await rig.start(["a", "b"], [("a", "b")])
    await agent.pull()
    await rig.orchestrator.cancel(run.id, None)
    return run.id


async def a_run_that_is_paused(rig: Rig) -> str:
    run = await rig.start(["a", "b"], [("a", "b")])
    await rig.orchestrator.pause(run.id, None)
    return run.id
