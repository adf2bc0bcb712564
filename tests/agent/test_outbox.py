"""What waits to be reported, what is asked for with it, and what happens when a call fails."""

import asyncio
from pathlib import Path

import pytest
from running_agent import run

from towline.v1.agent_service_pb2 import AttemptResult
from towline_agent import outbox
from towline_agent.clock import Backoff
from towline_agent.control_plane import ControlPlaneError, SessionReplaced, SessionUnknown, Unavailable
from towline_agent.files import remove_tree
from towline_agent.holdings import Holdings
from towline_agent.intake import Intake
from towline_agent.outbox import Outbox
from towline_agent.session import Session
from towline_agent.spool import ResultSpool
from towline_agent.testing import FakeClock, make_offer


def result(node: str, size: int = 1) -> AttemptResult:
    return AttemptResult(lease=make_offer(node).lease, outcome=AttemptResult.SUCCEEDED, output_json=b"1" * size)


def filled(folder: Path, *nodes: str) -> Outbox:
    box = Outbox(ResultSpool(folder), FakeClock())
    for node in nodes:
        box.add(node, result(node))
    return box


def test_a_batch_is_everything_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_BATCH", 3)
    box = filled(tmp_path, *"abcd")
    assert list(box.batch()) == ["a", "b", "c"]
    monkeypatch.setattr(outbox, "MAX_BATCH_BYTES", 10)
    assert list(box.batch()) == ["a"]


def test_the_result_that_spoils_a_batch_is_found_and_replaced(tmp_path: Path) -> None:
    box = filled(tmp_path, *"abc")
    box.refused(box.batch(), "odd")
    assert list(box.batch()) == ["a"]
    box.drop("a")
    box.accepted()
    spoiler = box.batch()
    assert list(spoiler) == ["b"]
    box.refused(spoiler, "odd")
    [substitute] = box.batch().values()
    assert (substitute.failure.code, substitute.failure.cause) == ("INVALID_OUTPUT", "odd")
    assert substitute.lease == result("b").lease
    box.refused(box.batch(), "odd")
    box.drop("c")
    box.accepted()
    for node in "de":
        box.add(node, result(node))
    assert list(box.batch()) == ["d", "e"]


def test_results_outlive_the_process_until_they_are_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = filled(tmp_path)
        await box.keep("a", result("a"))
        assert (tmp_path / "a.result").stat().st_mode & 0o777 == 0o600
        again = Outbox(ResultSpool(tmp_path), FakeClock())
        assert again.batch() == {"a": result("a")}
        again.drop("a")
        assert not again.settled
        await again.sweep()
        assert again.settled
        assert not Outbox(ResultSpool(tmp_path), FakeClock())

    run(scenario)


def test_a_full_disk_keeps_no_result_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        box = filled(tmp_path / "spool")
        remove_tree(tmp_path / "spool")
        await box.keep("a", result("a"))
        box.add("a", result("a"))
        assert len(box) == 1

    run(scenario)


def test_a_request_that_failed_gives_back_its_slots_and_its_starts() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        holdings = Holdings(clock, lambda: None)
        intake = Intake(3, holdings, lambda: 7, clock)
        holdings.add(make_offer(), clock.now)
        first = intake.ask()
        assert (first.want, first.free_memory_bytes, len(first.started)) == (3, 7, 1)
        assert (intake.ask().want, intake.ask().started) == (0, [])
        intake.give_up(first)
        assert intake.ask() == first

    run(scenario)


def test_more_offers_than_were_asked_for_are_left_alone() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        intake = Intake(1, Holdings(clock, lambda: None), lambda: 7, clock)
        started: list[str] = []
        offers = [make_offer("a"), make_offer("b")]
        intake.take(intake.ask(), offers, lambda offer, asked_at: started.append(offer.lease.node_id))
        assert (started, intake.slots.occupied) == (["a"], 1)

    run(scenario)


@pytest.mark.parametrize(("error", "introductions"), [(Unavailable("x"), 0), (SessionUnknown("x"), 1)])
def test_a_failed_call_is_repeated_when_a_sync_succeeds(error: ControlPlaneError, introductions: int) -> None:
    async def scenario() -> None:
        clock, asked = FakeClock(), list[bool]()
        session = Session(clock, lambda: asked.append(session.is_open))
        session.renewed()
        waiting = asyncio.create_task(session.recover(error, Backoff(clock.jitter)))
        await asyncio.sleep(0)
        assert not waiting.done()
        session.renewed()
        await waiting
        assert asked == [False] * introductions

    run(scenario)


def test_a_failed_call_is_repeated_after_a_while() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        waiting = asyncio.create_task(Session(clock, pytest.fail).recover(Unavailable("x"), Backoff(clock.jitter)))
        await asyncio.sleep(0)
        clock.advance(0.1)
        await waiting

    run(scenario)


def test_a_lost_place_is_not_recovered_from() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        with pytest.raises(SessionReplaced):
            await Session(clock, lambda: None).recover(SessionReplaced("x"), Backoff(clock.jitter))

    run(scenario)
