"""Decides what is done at a time of a schedule: start a run, skip it, keep it for later, or give it up.

One time is decided at a call, so that a schedule with many times behind it holds up no other. What comes next follows
from the schedule and the clock alone: nothing is remembered between two calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, dropwhile, islice, takewhile
from typing import Final

from towline_controlplane.engine.timetable import Timetable, delay, next_moment
from towline_controlplane.frozen import replace
from towline_controlplane.schedule_records import OpenRun, Outcome, Overlap, Schedule

MAX_OPEN_RUNS: Final = 100
"""A schedule that allows any number of runs at once has no more than this."""
MAX_FAILURES: Final = 10
"""After so many times in a row without a run that could be started it is paused."""


class Act(StrEnum):
    """What is to be done now."""

    NOTHING = "NOTHING"
    START = "START"
    CANCEL = "CANCEL"
    """Cancel what is open; the time is decided again after that."""
    RECORD = "RECORD"
    """Only what became of the time is to be written down."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no run can be started; one that is `final` will not be possible later either."""

    code: str
    message: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Missed:
    """Times that were given up together; `last` is the newest of them."""

    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done at `time`, and the schedule after it."""

    act: Act
    schedule: Schedule
    time: int = 0
    outcome: Outcome | None = None
    reason: str = ""
    missed: Missed | None = None


def decide_time(
    schedule: Schedule, timetable: Timetable, now: int, open_runs: Sequence[OpenRun], refusal: Refusal | None = None
) -> Decision:
    """Returns what is done next; `refusal` tells that a run cannot be started.

    A buffered time goes before the next one, once nothing is open.
    """
    if schedule.buffered_time is not None and not open_runs:
        emptied = replace(schedule, buffered_time=None)
        return _start(emptied, schedule.buffered_time, refusal)
    if schedule.due_time is None or schedule.next_time is None or schedule.due_time > now:
        return Decision(Act.NOTHING, schedule)
    time, missed = _time_to_act(schedule, timetable, now)
    if time is None:
        behind = now if missed is None else missed.last
        return Decision(Act.RECORD, planned(schedule, timetable, behind), missed=missed)
    moved = planned(schedule, timetable, time)
    return replace(_by_overlap(moved, time, open_runs, refusal), missed=missed)


def planned(schedule: Schedule, timetable: Timetable, after: int) -> Schedule:
    """Returns the schedule with the first time behind `after` as its next one; none if it is paused or over."""
    if schedule.start_time is not None:
        after = max(after, schedule.start_time - 1)
    time = None if schedule.paused else next_moment(timetable, after, schedule.end_time)
    return replace(schedule, next_time=time, due_time=None if time is None else _due(schedule, timetable, time))


def failed(schedule: Schedule, time: int, refusal: Refusal) -> Decision:
    """Returns what is done at a time whose run cannot be started: after too many, or for good, the schedule rests."""
    failures = schedule.failures + 1
    noted = replace(schedule, failures=failures, error_code=refusal.code, error_message=refusal.message)
    if refusal.final or failures >= MAX_FAILURES:
        why = "no run can be started" if refusal.final else f"{failures} times in a row no run could be started"
        noted = stopped(noted, f"Paused by Towline, because {why}: {refusal.message}")
    return Decision(Act.RECORD, noted, time, Outcome.FAILED, refusal.message)


def stopped(schedule: Schedule, note: str) -> Schedule:
    """Returns the schedule paused: no time comes, and none that waits is kept."""
    return replace(
        schedule,
        paused=True,
        note=note,
        revision=schedule.revision + 1,
        next_time=None,
        due_time=None,
        buffered_time=None,
    )


def _time_to_act(schedule: Schedule, timetable: Timetable, now: int) -> tuple[int | None, Missed | None]:
    """Returns the oldest of the times that are due and not given up, and what is given up."""
    first, window_start = schedule.next_time or 0, now - schedule.catch_up_window
    latest = now if schedule.end_time is None else min(now, schedule.end_time)
    # The times that are due, the latest first; `first` is one whatever the timetable says by now.
    due = dropwhile(lambda time: time > first and _due(schedule, timetable, time) > now, timetable.until(latest))
    newest = next(due, first)
    later = takewhile(lambda time: time > first and time >= window_start, chain([newest], due))
    kept = list(islice(later, schedule.catch_up_limit))
    if len(kept) < schedule.catch_up_limit and first >= window_start:
        return first, None
    if not kept:
        last = max(newest, first)
        return None, Missed(last, _why_missed(schedule, too_old=True))
    last = max(next(timetable.until(kept[-1] - 1), first), first)
    return kept[-1], Missed(last, _why_missed(schedule, too_old=last < window_start))


def _why_missed(schedule: Schedule, *, too_old: bool) -> str:
    if too_old:
        return f"this and what came before was longer ago than {schedule.catch_up_window // 1_000_000} s"
    return f"only the newest {schedule.catch_up_limit} of the times that were held up are made up for"


def _by_overlap(schedule: Schedule, time: int, open_runs: Sequence[OpenRun], refusal: Refusal | None) -> Decision:
    if not open_runs:
        return _start(schedule, time, refusal)
    match schedule.overlap:
        case Overlap.ALLOW_ALL if len(open_runs) < MAX_OPEN_RUNS:
            return _start(schedule, time, refusal)
        case Overlap.ALLOW_ALL:
            return failed(schedule, time, Refusal("TOO_MANY_RUNS", f"{len(open_runs)} of its runs are open"))
        case Overlap.CANCEL_OTHER if refusal is None and not all(run.cancel_requested for run in open_runs):
            return Decision(Act.CANCEL, schedule, time)
        case Overlap.CANCEL_OTHER:
            return _start(schedule, time, refusal)
        case Overlap.BUFFER_ONE if schedule.buffered_time is None:
            reason = f"starts when run {open_runs[0].id} has ended"
            return Decision(Act.RECORD, replace(schedule, buffered_time=time), time, Outcome.BUFFERED, reason)
        case Overlap.BUFFER_ONE:
            reason = f"run {open_runs[0].id} was open, and another time was waiting for its end"
            return Decision(Act.RECORD, schedule, time, Outcome.SKIPPED, reason)
        case Overlap.SKIP:
            return Decision(Act.RECORD, schedule, time, Outcome.SKIPPED, f"run {open_runs[0].id} was open")


def _start(schedule: Schedule, time: int, refusal: Refusal | None) -> Decision:
    if refusal is not None:
        return failed(schedule, time, refusal)
    return Decision(Act.START, replace(schedule, failures=0, error_code="", error_message=""), time, Outcome.STARTED)


def _due(schedule: Schedule, timetable: Timetable, time: int) -> int:
    if not schedule.jitter:
        return time
    return time + delay(schedule.id, time, next_moment(timetable, time, None), schedule.jitter)
