"""From requests to schedules: what is given, what is not, and what is wrong with it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1 import schedule_pb2
from towline.v1 import schedule_service_pb2 as pb
from towline_controlplane.engine.timetable import LATEST, SECOND, Timetable
from towline_controlplane.errors import InvalidArgument, Violation
from towline_controlplane.frozen import replace
from towline_controlplane.json_values import MAX_BYTES, to_text, violations
from towline_controlplane.schedule_records import Overlap, Schedule
from towline_controlplane.services.checks import refuse, wrong_labels, wrong_text
from towline_controlplane.services.struct_values import plain, plain_object
from towline_controlplane.timetables import DEFAULT_ZONE, timetable, timetable_of

MAX_NAME_LENGTH: Final = 200
MAX_NOTE_LENGTH: Final = 1_000
MAX_PRIORITY: Final = 100
MAX_CATCH_UP: Final = 100
_DAY: Final = 86_400 * SECOND
_YEAR: Final = 366 * _DAY
_DEFAULT_WINDOW: Final = _DAY
_DEFAULT_LIMIT: Final = 10
# Lowest and highest, in µs.
_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "interval": (SECOND, _YEAR),
    "catchUpWindow": (60 * SECOND, _YEAR),
    "jitter": (0, _DAY),
}


def new_schedule(request: pb.CreateScheduleRequest, schedule_id: str, owner_id: str, now: int) -> Schedule:
    """Returns the schedule that a request describes, not checked yet."""
    return Schedule(
        id=schedule_id,
        owner_id=owner_id,
        name=request.name,
        workflow_id=request.workflow_id,
        version_id=request.version_id or None,
        cron=request.cron or None,
        interval=_duration(request.interval) if request.HasField("interval") else None,
        time_zone=request.time_zone or DEFAULT_ZONE,
        input=_input_text(request),
        priority=request.priority,
        labels=dict(request.labels),
        overlap=_overlap(request.overlap_policy) or Overlap.SKIP,
        catch_up_window=_duration(request.catch_up_window) if request.HasField("catch_up_window") else _DEFAULT_WINDOW,
        catch_up_limit=request.catch_up_limit or _DEFAULT_LIMIT,
        jitter=_duration(request.jitter),
        start_time=moment(request.start_time) or None,
        end_time=moment(request.end_time) or None,
        paused=request.paused,
        note=request.note,
        revision=1,
        create_time=now,
        update_time=now,
    )


def changes(request: pb.UpdateScheduleRequest) -> dict[str, object]:
    """Returns the fields of a schedule that a request changes, not checked yet."""
    if request.HasField("cron") and request.HasField("interval"):
        raise InvalidArgument.of("interval", "cannot be given together with cron")
    given: dict[str, object] = {}
    for name, changed in _CHANGES.items():
        if request.HasField(name):
            given |= changed(request)
    if overlap := _overlap(request.overlap_policy):
        given["overlap"] = overlap
    return given


def checked(row: Schedule) -> Timetable:
    """Returns the timetable of a schedule whose every field is in its bounds; raises InvalidArgument."""
    refuse(
        wrong_text(row.name, "name", 1, MAX_NAME_LENGTH),
        wrong_text(row.note, "note", 0, MAX_NOTE_LENGTH),
        wrong_labels(row.labels, "labels"),
        list(_wrong_numbers(row)),
        _wrong_choice(row.cron, row.interval),
        _wrong_span(row.start_time, row.end_time),
    )
    return timetable_of(row)


def expressed(request: pb.PreviewScheduleRequest) -> Timetable:
    """Returns the timetable that a request asks about; raises InvalidArgument."""
    interval = _duration(request.interval) if request.HasField("interval") else None
    start = moment(request.start_time) if request.HasField("start_time") else None
    end = moment(request.end_time) if request.HasField("end_time") else None
    wrong = [] if interval is None else list(_wrong_durations({"interval": interval}))
    refuse(wrong, _wrong_choice(request.cron or None, interval), _wrong_span(start, end))
    return timetable(request.cron or None, interval, request.time_zone, start)


def moment(timestamp: Timestamp) -> int:
    """Returns a time in µs since the epoch."""
    return timestamp.seconds * SECOND + timestamp.nanos // 1_000


def _duration(duration: Duration) -> int:
    # Rounded up, so that what is too fine is seen to be.
    return duration.seconds * SECOND + -(-duration.nanos // 1_000)


def _input_text(request: pb.CreateScheduleRequest | pb.UpdateScheduleRequest) -> str:
    value = plain(request.input)
    refuse(list(violations(value, "input")))
    text = to_text(value)
    if len(text.encode()) > MAX_BYTES:
        raise InvalidArgument.of("input", "is larger than 1 MiB")
    return text


def _labels(request: pb.UpdateScheduleRequest) -> dict[str, str]:
    labels = plain_object(request.labels)
    refuse([Violation(f"labels.{key[:100]}", "must be a text") for key, value in labels.items() if not _is_text(value)])
    return cast("dict[str, str]", labels)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _overlap(number: int) -> Overlap | None:
    if number == schedule_pb2.Schedule.OVERLAP_POLICY_UNSPECIFIED:
        return None
    known = schedule_pb2.Schedule.OverlapPolicy.DESCRIPTOR.values_by_number.get(number)
    if known is None:
        raise InvalidArgument.of("overlapPolicy", f"has the unknown value {number}")
    return Overlap(known.name)


def _wrong_numbers(row: Schedule) -> Iterator[Violation]:
    if abs(row.priority) > MAX_PRIORITY:
        yield Violation("priority", f"must be -{MAX_PRIORITY} to {MAX_PRIORITY}")
    if not 1 <= row.catch_up_limit <= MAX_CATCH_UP:
        yield Violation("catchUpLimit", f"must be 1 to {MAX_CATCH_UP}")
    durations = {"catchUpWindow": row.catch_up_window, "jitter": row.jitter}
    yield from _wrong_durations(durations if row.interval is None else {**durations, "interval": row.interval})


def _wrong_durations(durations: Mapping[str, int]) -> Iterator[Violation]:
    for field, value in durations.items():
        lowest, highest = _BOUNDS[field]
        if not lowest <= value <= highest:
            yield Violation(field, f"must be {lowest // SECOND} to {highest // SECOND} seconds")
        elif value % SECOND:
            yield Violation(field, "must be whole seconds")


def _wrong_choice(cron: str | None, interval: int | None) -> list[Violation]:
    if (cron is None) == (interval is None):
        return [Violation("cron", "is required, or interval" if cron is None else "cannot be given with interval")]
    return []


def _wrong_span(start: int | None, end: int | None) -> list[Violation]:
    wrong = [
        Violation(field, "is no time of this age of the calendar")
        for field, value in (("startTime", start), ("endTime", end))
        if value is not None and not 0 < value <= LATEST
    ]
    if not wrong and start is not None and end is not None and end < start:
        wrong.append(Violation("endTime", "is before startTime"))
    return wrong


_CHANGES: Final[Mapping[Any, Callable[[pb.UpdateScheduleRequest], dict[str, object]]]] = {
    "name": lambda request: {"name": request.name},
    "version_id": lambda request: {"version_id": request.version_id or None},
    "cron": lambda request: {"cron": request.cron, "interval": None},
    "interval": lambda request: {"cron": None, "interval": _duration(request.interval)},
    "time_zone": lambda request: {"time_zone": request.time_zone or DEFAULT_ZONE},
    "input": lambda request: {"input": _input_text(request)},
    "priority": lambda request: {"priority": request.priority},
    "labels": lambda request: {"labels": _labels(request)},
    "catch_up_window": lambda request: {"catch_up_window": _duration(request.catch_up_window)},
    "catch_up_limit": lambda request: {"catch_up_limit": request.catch_up_limit},
    "jitter": lambda request: {"jitter": _duration(request.jitter)},
    "note": lambda request: {"note": request.note},
    "start_time": lambda request: {"start_time": moment(request.start_time) or None},
    "end_time": lambda request: {"end_time": moment(request.end_time) or None},
}


def as_changed(row: Schedule, given: Mapping[str, object], now: int) -> Schedule:
    """Returns a schedule with fields changed, as a new revision."""
    return replace(row, **given, revision=row.revision + 1, update_time=now)
