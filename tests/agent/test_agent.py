"""The whole agent against the fake control plane and the fake supervisor."""

import asyncio
import json
import os
from collections import deque
from pathlib import Path

import pytest
from running_agent import DONE, run, running, settled

from towline.v1.agent_service_pb2 import (
    AttemptResult,
    HeldAttempt,
    Offer,
    ReportRequest,
    ReportResponse,
    Verdict,
)
from towline.v1.sandbox_pb2 import Sandbox
from towline_agent.control_plane import (
    RequestRefused,
)
from towline_agent.execution import EndReason, Exit, Launch, OnOutput, OutputStream
from towline_agent.testing import FakeControlPlane, make_offer


def test_an_offered_step_is_run_and_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            ready = asyncio.Event()
            world.agent.on_ready = ready.set
            world.supervisor.hold("shout").set_result(DONE)
            world.control_plane.offer(make_offer("shout"))
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)
            result = world.control_plane.results["shout"]
            assert (result.outcome, result.output_json) == (AttemptResult.SUCCEEDED, b'{"text": "HELLO"}')
            assert ready.is_set()
            [launch] = world.supervisor.launches
            assert json.loads(launch.stdin)["config"] == {"text": "hello"}
            assert launch.environment["TOWLINE_HTTP_ALLOW"] == "10.0.0.0/8"
            assert launch.environment["HOME"] == str(launch.work_dir)
            assert launch.environment["PATH"] == "/bin"
            assert launch.environment["TOWLINE_ARTIFACTS"] == str(launch.artifacts_dir)

    run(scenario)


def test_an_offer_that_demands_more_than_this_agent_can_is_refused_and_nothing_is_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            offer = make_offer("strict")
            offer.confinement.min_sandbox = Sandbox.L4
            world.control_plane.offer(offer)
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)
            result = world.control_plane.results["strict"]
            assert (result.outcome, result.failure.code) == (AttemptResult.FAILED, "SANDBOX_UNAVAILABLE")
            assert result.failure.message
            assert result.sandbox_level == Sandbox.LEVEL_UNSPECIFIED
            assert world.supervisor.launches == []

    run(scenario)


def look(launch: Launch) -> tuple[int, list[str], bool]:
    """What a plugin finds; it leaves a folder behind that nobody may enter."""
    mode, names = os.stat(launch.work_dir).st_mode & 0o777, os.listdir(launch.work_dir)
    assert os.listdir(launch.artifacts_dir) == []
    os.mkdir(launch.work_dir / "closed", mode=0)
    return mode, names, os.path.isdir(launch.environment["TMPDIR"])


def test_a_work_folder_is_private_and_empty_and_goes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            seen: list[tuple[int, list[str], bool]] = []

            async def play(launch: Launch, on_output: OnOutput) -> Exit:
                seen.append(look(launch))
                return DONE

            world.supervisor.script("step", play)
            world.control_plane.offer(make_offer())
            await world.control_plane.until(lambda: world.control_plane.results)
            assert seen == [(0o700, [], True)]
            await settled(world)

    run(scenario)


def test_a_chain_moves_with_the_reports_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=1) as world:
            rest = deque(make_offer(f"n{number}") for number in range(1, 20))
            world.control_plane.on_result = lambda result: [rest.popleft()] if rest else []
            world.control_plane.offer(make_offer("n0"))
            await world.control_plane.until(lambda: len(world.control_plane.results) == 20)
            assert len(world.control_plane.pulls) <= 2
            assert len(world.control_plane.reports) == 20
            await settled(world)

    run(scenario)


def test_no_more_than_the_slots_run_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=3) as world:
            world.control_plane.offer(*(make_offer(f"n{number}") for number in range(60)))
            await world.control_plane.until(lambda: len(world.control_plane.results) == 60)
            assert world.supervisor.most_running <= 3
            assert all(report.want <= 3 for report in world.control_plane.reports)
            await settled(world)

    run(scenario)


def test_a_start_is_confirmed_by_the_next_pull(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=2) as world:
            world.supervisor.hold("long")
            world.control_plane.offer(make_offer("long"))
            await world.control_plane.until(lambda: len(world.control_plane.pulls) == 2)
            pull = world.control_plane.pulls[1]
            assert ([lease.node_id for lease in pull.started], pull.want) == (["long"], 1)

    run(scenario)


def test_a_start_on_a_full_agent_is_confirmed_by_a_sync(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with running(tmp_path, slots=1, fake=fake) as world:
            world.supervisor.hold("long")
            await fake.until(lambda: fake.pulls)
            fake.offer(make_offer("long"))
            await world.supervisor.started("long")
            world.clock.advance(0.1)
            await fake.until(lambda: any(sync.held for sync in fake.syncs))
            held = next(sync.held[0] for sync in reversed(fake.syncs) if sync.held)
            assert (held.lease.node_id, held.phase) == ("long", HeldAttempt.RUNNING)

    run(scenario)


def test_a_lost_report_answer_is_asked_for_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(lost_answers=deque(["report"]))
        async with running(tmp_path, slots=1, fake=fake) as world:
            fake.offer(make_offer())
            await fake.until(lambda: len(fake.reports) == 2)
            assert fake.reports[0].results[0] == fake.reports[1].results[0]
            fake.offer(make_offer("next"))
            await fake.until(lambda: "next" in fake.results)
            await settled(world)
            assert len(fake.reports) == 3

    run(scenario)


def test_results_wait_on_disk_while_the_control_plane_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=3) as world:
            fake = world.control_plane
            ends = [world.supervisor.hold(node) for node in "abc"]
            fake.offer(*(make_offer(node) for node in "abc"))
            for node in "abc":
                await world.supervisor.started(node)
            fake.away = True
            for end in ends:
                end.set_result(DONE)
            for node in "abc":
                await world.supervisor.ended(node)
            while sum(name.endswith(".result") for name in world.files("results")) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert fake.results == {}
            fake.come_back()
            await fake.until(lambda: len(fake.results) == 3)
            await settled(world)

    run(scenario)


@pytest.mark.parametrize("verdict", [Verdict.LEASE_LOST, Verdict.ALREADY_REPORTED, Verdict.INVALID])
def test_any_verdict_ends_a_result(tmp_path: Path, verdict: Verdict.Code) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane(verdicts={"step": verdict})
        async with running(tmp_path, fake=fake) as world:
            fake.offer(make_offer())
            await fake.until(lambda: fake.reports)
            await settled(world)
            assert len(fake.reports) == 1

    run(scenario)


def test_a_report_that_is_refused_is_taken_apart(tmp_path: Path) -> None:
    class Picky(FakeControlPlane):
        async def report(self, request: ReportRequest) -> ReportResponse:
            if any(result.output_json == b"666" for result in request.results):
                raise RequestRefused("666 is evil")
            return await super().report(request)

    async def scenario() -> None:
        fake = Picky()
        async with running(tmp_path, slots=2, fake=fake) as world:
            good, bad = world.supervisor.hold("good"), world.supervisor.hold("bad")
            fake.offer(make_offer("good"), make_offer("bad"))
            await world.supervisor.started("bad")
            good.set_result(DONE)
            bad.set_result(Exit(EndReason.EXITED, exit_code=0, result=b"666"))
            await fake.until(lambda: len(fake.results) == 2)
            assert fake.results["good"].outcome == AttemptResult.SUCCEEDED
            assert fake.results["bad"].failure.code == "INVALID_OUTPUT"
            await settled(world)

    run(scenario)


def test_an_unforeseen_error_fails_its_attempt_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:

            async def explode(launch: Launch, on_output: OnOutput) -> Exit:
                raise ZeroDivisionError

            world.supervisor.script("bad", explode)
            world.control_plane.offer(make_offer("bad"), make_offer("good"))
            await world.control_plane.until(lambda: len(world.control_plane.results) == 2)
            assert world.control_plane.results["bad"].failure.code == "SPAWN_FAILED"
            assert world.control_plane.results["good"].outcome == AttemptResult.SUCCEEDED
            await settled(world)

    run(scenario)


def test_output_becomes_the_log_of_the_attempt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:

            async def talk(launch: Launch, on_output: OnOutput) -> Exit:
                on_output(OutputStream.STDOUT, b"hel")
                on_output(OutputStream.STDERR, b"oops\r\n")
                on_output(OutputStream.STDOUT, b"lo\nbye")
                return Exit(EndReason.EXITED, exit_code=3)

            world.supervisor.script("step", talk)
            world.control_plane.offer(make_offer())
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)
            log = world.control_plane.logs["step"]
            assert [line.split(b" ", 1)[1] for line in log.data.splitlines()] == [b"E- oops", b"O- hello", b"O- bye"]
            result = world.control_plane.results["step"]
            assert (log.final, result.log_bytes) == (True, len(log.data))
            assert "oops" in result.failure.cause

    run(scenario)


def test_a_repeated_offer_is_run_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=4) as world:
            end = world.supervisor.hold("step")
            offer: Offer = make_offer()
            world.control_plane.offer(offer, offer)
            await world.supervisor.started("step")
            end.set_result(DONE)
            await world.control_plane.until(lambda: world.control_plane.results)
            await settled(world)
            assert len(world.supervisor.launches) == 1

    run(scenario)
