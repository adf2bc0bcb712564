"""What is done at a time of a schedule: overlap, what was held up, failures, and clocks that jump."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_controlplane.engine.cron import parse_cron
from towline_controlplane.engine.firing import (
    MAX_FAILURES,
    MAX_OPEN_RUNS,
    Act,
    Decision,
    Refusal,
    decide_time,
    planned,
    stopped,
)
from towline_controlplane.engine.timetable import SECOND, CronTimetable, IntervalTimetable, Timetable
from towline_controlplane.frozen import replace
from towline_controlplane.schedule_records import OpenRun, Outcome, Overlap, Schedule

MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
START = 1_000_000 * HOUR
HOURLY = IntervalTimetable(HOUR)
OPEN = [OpenRun("r1", cancel_requested=False)]
CANCELLED = [OpenRun("r1", cancel_requested=True)]
REFUSAL = Refusal("INPUT_INVALID", "input.n is required")


def schedule(timetable: Timetable = HOURLY, now: int = START, **values: object) -> Schedule:
    plain = Schedule(
        id="s", owner_id="o", name="n", workflow_id="w", version_id=None, cron=None, interval=HOUR, time_zone="UTC",
        input="{}", priority=0, labels={}, overlap=Overlap.SKIP, catch_up_window=24 * HOUR, catch_up_limit=10,
        jitter=0, start_time=None, end_time=None, paused=False, note="", revision=1, create_time=now, update_time=now,
    )  # fmt: skip
    return planned(replace(plain, **values), timetable, now)


def fire(
    row: Schedule, now: int, open_runs: Sequence[OpenRun] = (), timetable: Timetable = HOURLY
) -> list[tuple[int, Outcome | None]]:
    """Decides until nothing is left; returns the times and what became of them."""
    done: list[tuple[int, Outcome | None]] = []
    while (decision := decide_time(row, timetable, now, open_runs)).act is not Act.NOTHING:
        done.append((decision.time, decision.outcome))
        row = decision.schedule
    return done


ALLOWED = [OpenRun(f"r{number}", cancel_requested=False) for number in range(MAX_OPEN_RUNS)]
TABLE: list[tuple[Overlap, list[OpenRun], Act, Outcome | None]] = [
    (Overlap.SKIP, [], Act.START, Outcome.STARTED),
    (Overlap.SKIP, OPEN, Act.RECORD, Outcome.SKIPPED),
    (Overlap.SKIP, CANCELLED, Act.RECORD, Outcome.SKIPPED),
    (Overlap.BUFFER_ONE, [], Act.START, Outcome.STARTED),
    (Overlap.BUFFER_ONE, OPEN, Act.RECORD, Outcome.BUFFERED),
    (Overlap.ALLOW_ALL, [], Act.START, Outcome.STARTED),
    (Overlap.ALLOW_ALL, ALLOWED[1:], Act.START, Outcome.STARTED),
    (Overlap.ALLOW_ALL, ALLOWED, Act.RECORD, Outcome.FAILED),
    (Overlap.CANCEL_OTHER, [], Act.START, Outcome.STARTED),
    (Overlap.CANCEL_OTHER, OPEN, Act.CANCEL, None),
    (Overlap.CANCEL_OTHER, CANCELLED, Act.START, Outcome.STARTED),
    (Overlap.CANCEL_OTHER, [*OPEN, *CANCELLED], Act.CANCEL, None),
]


@pytest.mark.parametrize(("overlap", "open_runs", "act", "outcome"), TABLE)
def test_the_policy_says_what_happens_while_a_run_is_open(
    overlap: Overlap, open_runs: list[OpenRun], act: Act, outcome: Outcome | None
) -> None:
    decision = decide_time(schedule(overlap=overlap), HOURLY, START + HOUR, open_runs)
    assert (decision.act, decision.outcome, decision.time) == (act, outcome, START + HOUR)
    assert decision.missed is None


def test_nothing_is_done_before_its_time() -> None:
    row = schedule()
    assert decide_time(row, HOURLY, START + HOUR - 1, []) == Decision(Act.NOTHING, row)


def test_a_buffered_time_starts_once_nothing_is_open_and_keeps_its_place() -> None:
    row = schedule(overlap=Overlap.BUFFER_ONE)
    row = decide_time(row, HOURLY, START + HOUR, OPEN).schedule
    assert decide_time(row, HOURLY, START + HOUR, OPEN).act is Act.NOTHING
    second = decide_time(row, HOURLY, START + 2 * HOUR, OPEN)
    assert second.outcome is Outcome.SKIPPED
    started = decide_time(second.schedule, HOURLY, START + 2 * HOUR, [])
    assert (started.act, started.time) == (Act.START, START + HOUR)
    assert started.schedule.buffered_time is None
    assert started.schedule.next_time == START + 3 * HOUR


@pytest.mark.parametrize("overlap", Overlap)
def test_what_cannot_be_started_is_recorded_and_cancels_nothing(overlap: Overlap) -> None:
    decision = decide_time(schedule(overlap=overlap), HOURLY, START + HOUR, CANCELLED[1:], REFUSAL)
    assert (decision.act, decision.outcome, decision.reason) == (Act.RECORD, Outcome.FAILED, REFUSAL.message)
    assert (decision.schedule.error_code, decision.schedule.failures) == ("INPUT_INVALID", 1)
    assert decision.schedule.next_time == START + 2 * HOUR
    assert decide_time(schedule(overlap=overlap), HOURLY, START + HOUR, OPEN, REFUSAL).act is Act.RECORD


def test_after_too_many_failures_in_a_row_it_is_paused_and_a_start_forgets_them() -> None:
    row = schedule()
    for number in range(1, MAX_FAILURES):
        row = decide_time(row, HOURLY, START + number * HOUR, [], REFUSAL).schedule
        assert (row.failures, row.paused) == (number, False)
    assert decide_time(row, HOURLY, START + MAX_FAILURES * HOUR, []).schedule.failures == 0
    row = decide_time(row, HOURLY, START + MAX_FAILURES * HOUR, [], REFUSAL).schedule
    assert (row.paused, row.next_time, row.due_time) == (True, None, None)
    assert row.note == "Paused by Towline, because 10 times in a row no run could be started: input.n is required"


def test_what_is_refused_for_good_pauses_at_once() -> None:
    row = decide_time(schedule(), HOURLY, START + HOUR, [], Refusal("WORKFLOW_DELETED", "gone", final=True)).schedule
    assert (row.paused, row.note) == (True, "Paused by Towline, because no run can be started: gone")


def test_a_pause_takes_away_what_waits() -> None:
    row = stopped(replace(schedule(), buffered_time=START), "holiday")
    assert (row.paused, row.note, row.buffered_time, row.revision) == (True, "holiday", None, 2)
    assert decide_time(row, HOURLY, START + 9 * HOUR, []).act is Act.NOTHING
    assert planned(row, HOURLY, START).next_time is None


@pytest.mark.parametrize(
    ("away", "window", "limit", "expected"),
    [
        # Hours away, then: the hour given up together with all before it, and the hours made up for.
        (1, 24, 10, (None, [1])),
        (3, 24, 10, (None, [1, 2, 3])),
        (3, 24, 3, (None, [1, 2, 3])),
        (5, 24, 3, (2, [3, 4, 5])),
        (5, 24, 1, (4, [5])),
        (5, 2, 10, (2, [3, 4, 5])),
        (5, 2, 1, (4, [5])),
        (100_000, 2, 10, (99_997, [99_998, 99_999, 100_000])),
    ],
)
def test_after_an_outage_the_newest_times_in_the_window_are_made_up_for(
    away: int, window: int, limit: int, expected: tuple[int | None, list[int]]
) -> None:
    row = schedule(overlap=Overlap.ALLOW_ALL, catch_up_window=window * HOUR, catch_up_limit=limit)
    now = START + away * HOUR
    missed = decide_time(row, HOURLY, now, []).missed
    lost, kept = expected
    assert (missed and missed.last) == (None if lost is None else START + lost * HOUR)
    assert fire(row, now) == [(START + hour * HOUR, Outcome.STARTED) for hour in kept]


def test_times_that_are_all_too_old_are_given_up_together() -> None:
    row = schedule(catch_up_window=10 * MINUTE)
    decision = decide_time(row, HOURLY, START + 5 * HOUR + 30 * MINUTE, [])
    assert (decision.act, decision.outcome) == (Act.RECORD, None)
    assert decision.missed is not None
    assert decision.missed.last == START + 5 * HOUR
    assert "longer ago than 600 s" in decision.missed.reason
    assert decision.schedule.next_time == START + 6 * HOUR


@pytest.mark.parametrize("overlap", Overlap)
def test_a_clock_that_jumps_makes_no_storm(overlap: Overlap) -> None:
    minutely = IntervalTimetable(MINUTE)
    row = schedule(minutely, interval=MINUTE, overlap=overlap)
    ahead = START + HOUR
    assert len(fire(row, ahead, timetable=minutely)) == row.catch_up_limit
    while (decision := decide_time(row, minutely, ahead, [])).act is not Act.NOTHING:
        row = decision.schedule
    for back in range(0, HOUR, MINUTE):
        assert fire(row, START + back, timetable=minutely) == []
    assert fire(row, ahead + MINUTE, timetable=minutely) == [(ahead + MINUTE, Outcome.STARTED)]


def test_start_and_end_bound_the_times() -> None:
    row = schedule(start_time=START + 2 * HOUR, end_time=START + 3 * HOUR)
    assert row.next_time == START + 2 * HOUR
    assert fire(row, START + 9 * HOUR) == [(START + hour * HOUR, Outcome.STARTED) for hour in (2, 3)]
    assert schedule(end_time=START + HOUR - 1).next_time is None


def test_a_time_whose_timetable_has_changed_under_it_is_not_lost() -> None:
    row = replace(schedule(), next_time=START + 7 * MINUTE, due_time=START + 7 * MINUTE)
    decision = decide_time(row, HOURLY, START + 7 * MINUTE, [])
    assert (decision.act, decision.time) == (Act.START, START + 7 * MINUTE)
    assert decision.schedule.next_time == START + HOUR


@given(
    jitter=st.integers(0, 3 * HOUR),
    steps=st.lists(st.integers(1, 5 * HOUR), min_size=1, max_size=40),
    limit=st.integers(1, 5),
    zone=st.sampled_from(["UTC", "Europe/Berlin"]),
)
def test_each_time_comes_once_and_in_order_whenever_it_is_looked_at(
    jitter: int, steps: list[int], limit: int, zone: str
) -> None:
    timetable = CronTimetable(parse_cron("*/20 * * * *"), ZoneInfo(zone))
    row = schedule(timetable, jitter=jitter, overlap=Overlap.ALLOW_ALL, catch_up_limit=limit)
    now, seen = START, list[int]()
    for step in steps:
        now += step
        burst = 0
        while (decision := decide_time(row, timetable, now, [])).act is not Act.NOTHING:
            assert decision.act is Act.START
            if decision.missed is not None:
                seen.append(decision.missed.last)
            seen.append(decision.time)
            row, burst = decision.schedule, burst + 1
        assert burst <= limit
        assert row.due_time is not None
        assert row.due_time > now
    assert seen == sorted(set(seen))
    assert all(time <= now for time in seen)
    if row.next_time is not None and seen:
        assert next(timetable.after(seen[-1])) == row.next_time
