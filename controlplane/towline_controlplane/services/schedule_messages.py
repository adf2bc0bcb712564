"""Schedules as messages, and in words why nothing runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1 import schedule_pb2
from towline_controlplane.engine.timetable import LATEST, SECOND, Timetable
from towline_controlplane.model import Failure, FailureClass
from towline_controlplane.schedule_records import Firing, OpenRun, Outcome, Schedule
from towline_controlplane.services.convert import failure, timestamp
from towline_controlplane.services.etags import etag
from towline_controlplane.services.struct_values import wire_text

NEXT_TIMES: Final = 5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Whole:
    """All that is known of a schedule."""

    row: Schedule
    timetable: Timetable | None
    """None if its expression can no longer be read."""
    firings: Sequence[Firing]
    open_runs: Sequence[OpenRun]


def schedule(row: Schedule) -> schedule_pb2.Schedule:
    """Returns the schedule as a list shows it."""
    return schedule_pb2.Schedule(
        id=row.id,
        name=row.name,
        workflow_id=row.workflow_id,
        version_id=row.version_id or "",
        cron=row.cron or "",
        interval=None if row.interval is None else _duration(row.interval),
        time_zone=row.time_zone,
        input=wire_text(row.input),
        priority=row.priority,
        labels=row.labels,
        overlap_policy=row.overlap.value,
        catch_up_window=_duration(row.catch_up_window),
        catch_up_limit=row.catch_up_limit,
        jitter=_duration(row.jitter),
        state=_state(row),
        note=row.note,
        start_time=timestamp(row.start_time),
        end_time=timestamp(row.end_time),
        owner_id=row.owner_id,
        create_time=timestamp(row.create_time),
        update_time=timestamp(row.update_time),
        next_times=timestamps([] if row.next_time is None else [row.next_time]),
        buffered_time=timestamp(row.buffered_time),
        failures=row.failures,
        error=failure(_error(row)),
        etag=etag(row),
    )


def whole_schedule(whole: Whole) -> schedule_pb2.Schedule:
    """Returns the schedule with its next times, what became of the last ones, and an explanation."""
    message = schedule(whole.row)
    del message.next_times[:]
    message.next_times.extend(timestamps(_next_times(whole)))
    message.recent.extend(firing(each) for each in whole.firings)
    message.explanation = explanation(whole)
    return message


def timestamps(times: Iterable[int]) -> list[Timestamp]:
    """Returns times as messages."""
    return [Timestamp(seconds=time // SECOND, nanos=time % SECOND * 1_000) for time in times]


def firing(row: Firing) -> schedule_pb2.Firing:
    """Returns what became of a time."""
    return schedule_pb2.Firing(
        scheduled_time=timestamp(row.scheduled_time),
        outcome=row.outcome.value,
        origin=row.origin.value,
        run_id=row.started_run_id or "",
        run_state=row.run_state and row.run_state.value,
        reason=row.reason,
        create_time=timestamp(row.create_time),
    )


def explanation(whole: Whole) -> str:
    """Says why nothing runs, and what comes next."""
    row = whole.row
    if row.paused:
        return f"It is paused{f': {row.note}' if row.note else '.'}"
    said = [_waiting(whole), _trouble(whole), _coming(row)]
    return " ".join(sentence for sentence in said if sentence)


def _waiting(whole: Whole) -> str:
    if whole.row.buffered_time is None:
        return ""
    ahead = f"run {whole.open_runs[0].id} to end" if whole.open_runs else "its turn"
    return f"The time {_text(whole.row.buffered_time)} waits for {ahead}."


def _trouble(whole: Whole) -> str:
    row, last = whole.row, next(iter(whole.firings), None)
    if row.failures:
        times = "time" if row.failures == 1 else f"{row.failures} times"
        return f"For the last {times} no run could be started: {row.error_message}."
    if last is not None and last.outcome in (Outcome.SKIPPED, Outcome.MISSED):
        return f"The time {_text(last.scheduled_time)} was {last.outcome.lower()}: {last.reason}."
    return ""


def _coming(row: Schedule) -> str:
    if row.next_time is None or row.due_time is None:
        return "It has ended: no time is left."
    later = (row.due_time - row.next_time) // SECOND
    return f"Its next time is {_text(row.next_time)}{f', {later} s later by its jitter' if later else ''}."


def _next_times(whole: Whole) -> list[int]:
    row = whole.row
    if row.next_time is None:
        return []
    if whole.timetable is None:
        return [row.next_time]
    last = LATEST if row.end_time is None else row.end_time
    following = takewhile(lambda time: time <= last, whole.timetable.after(row.next_time))
    return [row.next_time, *islice(following, NEXT_TIMES - 1)]


def _state(row: Schedule) -> schedule_pb2.Schedule.State:
    if row.paused:
        return schedule_pb2.Schedule.PAUSED
    is_over = row.next_time is None and row.buffered_time is None
    return schedule_pb2.Schedule.ENDED if is_over else schedule_pb2.Schedule.ACTIVE


def _error(row: Schedule) -> Failure | None:
    return Failure(FailureClass.PERMANENT, row.error_code, row.error_message) if row.failures else None


def _duration(micros: int) -> Duration:
    return Duration(seconds=micros // SECOND)


def _text(micros: int) -> str:
    return f"{_EPOCH + timedelta(microseconds=micros):%Y-%m-%d %H:%M:%S} UTC"
