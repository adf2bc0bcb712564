"""What becomes of what runs: directives, lost sessions and leases, draining, what a dead process left."""

import asyncio
from collections import deque
from pathlib import Path

import pytest
from running_agent import DONE, World, run, running, settled
from test_bundles import DIGEST, GOOD

from towline.v1.agent_service_pb2 import (
    AttemptResult,
    Directive,
    HeldAttempt,
    Verdict,
)
from towline_agent.control_plane import (
    AgentMustStop,
    CredentialRefused,
    SessionReplaced,
    SessionUnknown,
    Unavailable,
)
from towline_agent.execution import Exit, Launch, OnOutput, OutputStream
from towline_agent.holdings import lease_key
from towline_agent.log_spool import LogSpool
from towline_agent.spool import ResultSpool
from towline_agent.testing import FakeClock, FakeControlPlane, make_offer


def held(world: World) -> HeldAttempt | None:
    """What the last Sync said of the only attempt."""
    syncs = world.control_plane.syncs
    return syncs[-1].held[0] if syncs and syncs[-1].held else None


def is_frozen(world: World) -> bool:
    attempt = held(world)
    return attempt is not None and attempt.frozen


def test_a_cancelled_step_is_stopped_and_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.supervisor.hold("long")
            offer = make_offer("long")
            world.control_plane.offer(offer)
            await world.supervisor.started("long")
            world.control_plane.direct(Directive.CANCEL, offer.lease, "asked by a person")
            await world.control_plane.until(lambda: world.control_plane.results)
            result = world.control_plane.results["long"]
            assert (result.outcome, result.failure.code) == (AttemptResult.CANCELLED, "CANCELLED")
            assert "asked by a person" in result.failure.cause
            await settled(world)

    run(scenario)


def test_a_frozen_step_stands_still_until_it_is_thawed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            end = world.supervisor.hold("long")
            offer = make_offer("long")
            world.control_plane.offer(offer)
            launch = await world.supervisor.started("long")
            for action, frozen in ((Directive.FREEZE, True), (Directive.FREEZE, True), (Directive.THAW, False)):
                world.control_plane.direct(action, offer.lease)
                await world.control_plane.until(lambda frozen=frozen: is_frozen(world) is frozen)
                assert (launch.key in world.supervisor.frozen) is frozen
            end.set_result(DONE)
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)

    run(scenario)


def test_a_step_that_is_frozen_before_it_was_launched_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.control_plane.plugins[DIGEST] = GOOD
            world.control_plane.refused.append("fetch_plugin")
            offer = make_offer("early", digest=DIGEST)
            world.control_plane.offer(offer)
            await world.control_plane.until(lambda: held(world) is not None)
            world.control_plane.direct(Directive.FREEZE, offer.lease)
            await world.control_plane.until(lambda: is_frozen(world))
            world.control_plane.refused.clear()
            world.clock.advance(5)
            await world.control_plane.until(lambda: DIGEST in world.files("plugins"))
            assert world.supervisor.launches == []
            world.control_plane.direct(Directive.THAW, offer.lease)
            await world.supervisor.started("early")
            await world.control_plane.until(lambda: world.control_plane.results)

    run(scenario)


def test_a_frozen_step_is_cancelled_as_any_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.supervisor.hold("long")
            offer = make_offer("long")
            world.control_plane.offer(offer)
            launch = await world.supervisor.started("long")
            world.control_plane.direct(Directive.FREEZE, offer.lease)
            await world.control_plane.until(lambda: is_frozen(world))
            world.control_plane.direct(Directive.CANCEL, offer.lease)
            await world.control_plane.until(lambda: world.control_plane.results)
            assert world.supervisor.stopped == [launch.key]
            assert world.control_plane.results["long"].outcome == AttemptResult.CANCELLED
            await settled(world)

    run(scenario)


def test_a_released_step_is_stopped_and_never_mentioned_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:

            async def play(launch: Launch, on_output: OnOutput) -> Exit:
                on_output(OutputStream.STDOUT, b"hello\n")
                await asyncio.Event().wait()
                return DONE

            world.supervisor.script("long", play)
            offer = make_offer("long")
            world.control_plane.offer(offer)
            await world.supervisor.started("long")
            world.control_plane.direct(Directive.RELEASE, offer.lease)
            await world.supervisor.ended("long")
            await settled(world)
            assert world.control_plane.reports == []

    run(scenario)


@pytest.mark.parametrize("error", [SessionReplaced("other"), CredentialRefused("revoked")])
@pytest.mark.parametrize("call", ["sync", "report"])
def test_an_agent_that_lost_its_place_kills_what_runs_and_ends(tmp_path: Path, error: AgentMustStop, call: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.supervisor.hold("long")
            world.control_plane.offer(make_offer("long"))
            await world.supervisor.started("long")
            world.control_plane.errors[call] = deque([error])
            world.control_plane.offer(make_offer("short"))
            with pytest.raises(type(error)):
                await world.life
            assert world.supervisor.running == 0

    run(scenario)


@pytest.mark.parametrize("call", ["pull", "report", "sync"])
def test_a_forgotten_session_is_introduced_again(tmp_path: Path, call: str) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with running(tmp_path, fake=fake) as world:
            await fake.until(lambda: fake.syncs)
            fake.forget_sessions()
            fake.errors[call] = deque([SessionUnknown("gone")])
            fake.offer(make_offer("before"), make_offer("after"))
            await fake.until(lambda: len(fake.results) == 2)
            assert sum(sync.HasField("info") for sync in fake.syncs) >= 2
            assert fake.syncs[0].info.labels == {"zone": "a"}
            await settled(world)

    run(scenario)


def test_work_is_asked_for_again_once_the_last_result_is_released(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=1) as world:
            fake = world.control_plane
            end, offer = world.supervisor.hold("long"), make_offer("long")
            fake.offer(offer)
            await world.supervisor.started("long")
            fake.errors["report"] = deque([Unavailable("lost")] * 1000)
            end.set_result(DONE)
            await fake.until(lambda: world.files("results"))
            fake.direct(Directive.RELEASE, offer.lease)
            await fake.until(lambda: not world.files("results"))
            del fake.errors["report"]
            fake.offer(make_offer("next"))
            await fake.until(lambda: fake.results)
            assert list(fake.results) == ["next"]
            await settled(world)

    run(scenario)


def test_leases_that_ran_out_are_fenced_before_anybody_else_can_hold_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            fake = world.control_plane
            world.supervisor.hold("long")
            fake.offer(make_offer("long"))
            await world.supervisor.started("long")
            fake.away = True
            world.clock.advance(26.0)
            await world.supervisor.ended("long")
            assert len(world.supervisor.killed) == 1
            fake.come_back()
            fake.offer(make_offer("next"))
            await fake.until(lambda: fake.results)
            await fake.until(lambda: len(fake.results) == 2)
            lost = fake.results["long"]
            assert (lost.outcome, lost.failure.code) == (AttemptResult.LOST, "AGENT_LOST")
            assert fake.results["next"].outcome == AttemptResult.SUCCEEDED
            await settled(world)

    run(scenario)


def test_a_start_that_is_never_acknowledged_is_given_up_before_the_offer_goes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            fake = world.control_plane
            await fake.until(lambda: fake.syncs)
            fake.refused.append("sync")
            world.supervisor.hold("long")
            fake.offer(make_offer("long"))
            await world.supervisor.started("long")
            world.clock.advance(4.0)
            assert world.supervisor.killed == []
            world.clock.advance(0.5)
            await world.supervisor.ended("long")
            assert len(world.supervisor.killed) == 1
            fake.refused.remove("sync")
            await fake.until(lambda: fake.results)
            assert fake.results["long"].outcome == AttemptResult.LOST
            await settled(world)

    run(scenario)


def test_a_short_absence_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            fake = world.control_plane
            end = world.supervisor.hold("long")
            fake.offer(make_offer("long"))
            await world.supervisor.started("long")
            await world.acknowledged("long")
            fake.away = True
            world.clock.advance(24.0)
            end.set_result(DONE)
            await world.supervisor.ended("long")
            fake.come_back()
            await fake.until(lambda: fake.results)
            assert fake.results["long"].outcome == AttemptResult.SUCCEEDED
            await settled(world)

    run(scenario)


def test_draining_waits_for_what_runs_and_asks_for_nothing_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            end = world.supervisor.hold("long")
            world.control_plane.offer(make_offer("long"))
            await world.supervisor.started("long")
            world.control_plane.on_result = lambda result: [make_offer("late")]
            world.agent.drain()
            end.set_result(DONE)
            await world.life
            assert list(world.control_plane.results) == ["long"]
            assert world.control_plane.reports[-1].want == 0

    run(scenario)


def test_a_drained_agent_asks_for_nothing_until_it_is_undrained(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            fake = world.control_plane
            await fake.until(lambda: fake.pulls)
            fake.drained = True
            await fake.until(lambda: len(fake.syncs) > 2)
            fake.offer(make_offer("first"))  # the Pull that waits is answered
            await fake.until(lambda: fake.results)
            assert fake.reports[-1].want == 0
            fake.offer(make_offer("second"))
            fake.drained = False
            await fake.until(lambda: len(fake.results) == 2)

    run(scenario)


def test_an_agent_that_hands_back_kills_and_reports_lost_without_a_grace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            world.supervisor.hold("long")
            world.control_plane.offer(make_offer("long"))
            launch = await world.supervisor.started("long")
            world.agent.hand_back()
            await world.life
            assert world.supervisor.killed == [launch.key]
            assert world.control_plane.results["long"].outcome == AttemptResult.LOST

    run(scenario)


def test_what_runs_longer_than_the_drain_is_reported_lost_with_the_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, drain_seconds=5.0) as world:
            world.supervisor.hold("long")
            world.control_plane.offer(make_offer("long"))
            await world.supervisor.started("long")
            await world.acknowledged("long")
            world.agent.drain()
            while not world.supervisor.stopped:
                world.clock.advance(1.0)
                await asyncio.sleep(0)
            await world.life
            assert world.control_plane.results["long"].failure.code == "AGENT_LOST"

    run(scenario)


def test_what_a_dead_process_left_is_sent_once_and_swept(tmp_path: Path) -> None:
    old = make_offer("old", epoch=7)
    result = AttemptResult(lease=old.lease, outcome=AttemptResult.SUCCEEDED, output_json=b"1")
    ResultSpool(tmp_path / "results").put(lease_key(old.lease), result)
    (tmp_path / "results" / "torn.result").write_bytes(b"\xff\xff\xff")
    (tmp_path / "work" / "stale" / "work").mkdir(parents=True)
    log = LogSpool(tmp_path / "logs", FakeClock()).open(lease_key(old.lease), old.lease, 1000)
    log.write(OutputStream.STDOUT, b"hello\nunfin")
    (tmp_path / "logs" / "torn.log").write_bytes(b"nonsense")

    async def scenario() -> None:
        fake = FakeControlPlane(verdicts={"old": Verdict.LEASE_LOST})
        async with running(tmp_path, fake=fake) as world:
            await fake.until(lambda: fake.reports and fake.logs and fake.logs["old"].final)
            assert fake.logs["old"].data.endswith(b"O- hello\n")
            await settled(world)
            assert [list(report.results) for report in fake.reports] == [[result]]

    run(scenario)
