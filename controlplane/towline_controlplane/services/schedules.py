"""ScheduleService: schedules of users, and runs of them that are asked for out of turn.

What comes in turn is the affair of `loops/scheduling`, which is woken by every change here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import Final, Protocol, cast

from towline.v1 import schedule_pb2
from towline.v1 import schedule_service_pb2 as pb
from towline_controlplane import frozen
from towline_controlplane.engine.firing import MAX_OPEN_RUNS, Refusal, planned, stopped
from towline_controlplane.engine.timetable import Timetable, first_moments
from towline_controlplane.errors import InvalidArgument, InvalidState, LimitExceeded, Unavailable
from towline_controlplane.ids import new_id
from towline_controlplane.model import Run
from towline_controlplane.orchestrator import RunStart
from towline_controlplane.schedule_records import Firing, Origin, Outcome, Schedule
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context, current_user, visible_owner
from towline_controlplane.services.checks import found, refuse, wrong_text
from towline_controlplane.services.etags import require_etag
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.services.schedule_messages import Whole, firing, schedule, timestamps, whole_schedule
from towline_controlplane.services.schedule_requests import (
    MAX_NOTE_LENGTH,
    as_changed,
    changes,
    checked,
    expressed,
    moment,
    new_schedule,
)
from towline_controlplane.services.schedule_starts import ScheduleStarts
from towline_controlplane.store import schedules
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.timetables import timetable_of

MAX_SCHEDULES: Final = 10_000
"""Of one owner."""
MAX_BACKFILL: Final = 100
MAX_REQUEST_ID_LENGTH: Final = 200
RECENT: Final = 10
_LIMITS: Final = PageLimits()
_PREVIEW_LIMITS: Final = PageLimits(default=5, maximum=100)
_QUERY: Final = "ListSchedules"
_OF_TIMETABLE: Final = frozenset({"cron", "interval", "time_zone", "start_time", "end_time", "jitter"})


class ScheduleCommands(Protocol):
    """The one writer of run state, as this service needs it."""

    async def start_for_schedule(self, start: RunStart, origin: Origin) -> Run | None:
        """Creates a run of a schedule; None if its time has one. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class ScheduleService:
    """Implements `towline.v1.ScheduleService`; `on_changed` is called when another time may be the next one."""

    database: Database
    commands: ScheduleCommands
    starts: ScheduleStarts
    on_changed: Callable[[], None] = lambda: None

    async def CreateSchedule(self, request: pb.CreateScheduleRequest, _context: Context) -> pb.CreateScheduleResponse:
        """Creates a schedule."""
        owner_id = current_user().id
        row = new_schedule(request, new_id(), owner_id, 0)
        timetable = checked(row)
        await self.starts.check(row, 0)

        def insert(tx: Transaction) -> Whole:
            if schedules.count_schedules(tx, owner_id) >= MAX_SCHEDULES:
                raise LimitExceeded(f"nobody can have more than {MAX_SCHEDULES:,} schedules")
            made = planned(frozen.replace(row, create_time=tx.now, update_time=tx.now), timetable, tx.now)
            if made.next_time is None and not made.paused:
                raise InvalidArgument.of("endTime", "no time comes before it")
            schedules.insert_schedule(tx, made)
            return Whole(made, timetable, (), ())

        return pb.CreateScheduleResponse(schedule=await self._changed(insert))

    async def ListSchedules(self, request: pb.ListSchedulesRequest, _context: Context) -> pb.ListSchedulesResponse:
        """Lists schedules, newest first."""
        owner_id, size = visible_owner(), page_size(request.page_size, _LIMITS)
        after = decode_token(request.page_token, (int, str), _QUERY)

        def read(tx: Transaction) -> pb.ListSchedulesResponse:
            page = gather(
                lambda key, limit: schedules.list_schedules(tx, owner_id, cast("tuple[int, str] | None", key), limit),
                lambda row: (row.create_time, row.id),
                after,
                size,
                lambda row: len(row.input),
            )
            return pb.ListSchedulesResponse(
                schedules=[schedule(row) for row in page.rows], next_page_token=encode_token(page.next_key, _QUERY)
            )

        return await self.database.read(read)

    async def GetSchedule(self, request: pb.GetScheduleRequest, _context: Context) -> pb.GetScheduleResponse:
        """Returns a schedule with its times and an explanation."""
        owner_id = visible_owner()

        def read(tx: Transaction) -> schedule_pb2.Schedule:
            return whole_schedule(_whole(tx, _visible(tx, request.schedule_id, owner_id)))

        return pb.GetScheduleResponse(schedule=await self.database.read(read))

    async def UpdateSchedule(self, request: pb.UpdateScheduleRequest, _context: Context) -> pb.UpdateScheduleResponse:
        """Changes what is given."""
        owner_id, given = visible_owner(), changes(request)
        seen = await self.database.read(lambda tx: _visible(tx, request.schedule_id, owner_id))
        require_etag(seen, request.etag)
        wanted = as_changed(seen, given, 0)
        timetable = checked(wanted)
        await self.starts.check(wanted, 0)

        def update(tx: Transaction) -> Whole:
            row = _locked(tx, request.schedule_id, owner_id)
            require_etag(row, request.etag)
            if row.revision != seen.revision:
                raise Unavailable("somebody else has changed the schedule at the same moment")
            row = as_changed(row, given, tx.now)
            if given.keys() & _OF_TIMETABLE:
                row = planned(row, timetable, tx.now)
            schedules.save_schedule(tx, row)
            return _whole(tx, row)

        return pb.UpdateScheduleResponse(schedule=await self._changed(update))

    async def DeleteSchedule(self, request: pb.DeleteScheduleRequest, _context: Context) -> pb.DeleteScheduleResponse:
        """Hides a schedule for good; its runs stay."""
        owner_id = visible_owner()

        def delete(tx: Transaction) -> None:
            row = _locked(tx, request.schedule_id, owner_id)
            require_etag(row, request.etag)
            schedules.delete_schedule(tx, row.id)

        await self.database.write(delete)
        return pb.DeleteScheduleResponse()

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, _context: Context) -> pb.PauseScheduleResponse:
        """Lets no time come."""
        owner_id = visible_owner()
        refuse(wrong_text(request.note, "note", 0, MAX_NOTE_LENGTH))

        def pause(tx: Transaction) -> Whole:
            row = _locked(tx, request.schedule_id, owner_id)
            if row.buffered_time is not None:
                reason = "the schedule was paused while it waited"
                waited = Firing(row.id, row.buffered_time, Outcome.SKIPPED, Origin.TIMETABLE, None, reason, tx.now)
                schedules.record_firing(tx, waited)
            row = frozen.replace(stopped(row, request.note), update_time=tx.now)
            schedules.save_schedule(tx, row)
            return _whole(tx, row)

        return pb.PauseScheduleResponse(schedule=await self._changed(pause))

    async def ResumeSchedule(self, request: pb.ResumeScheduleRequest, _context: Context) -> pb.ResumeScheduleResponse:
        """Goes on with the next time behind now."""
        owner_id = visible_owner()

        def resume(tx: Transaction) -> Whole:
            row = _locked(tx, request.schedule_id, owner_id)
            forgotten = {"paused": False, "note": "", "failures": 0, "error_code": "", "error_message": ""}
            resumed = as_changed(row, forgotten, tx.now)
            if row.paused:
                resumed = planned(resumed, timetable_of(row), tx.now)
            schedules.save_schedule(tx, resumed)
            return _whole(tx, resumed)

        return pb.ResumeScheduleResponse(schedule=await self._changed(resume))

    async def TriggerSchedule(
        self, request: pb.TriggerScheduleRequest, _context: Context
    ) -> pb.TriggerScheduleResponse:
        """Starts a run now."""
        owner_id, caller_id = visible_owner(), current_user().id
        refuse(wrong_text(request.request_id, "requestId", 0, MAX_REQUEST_ID_LENGTH))
        row, now = await self.database.read(lambda tx: (_visible(tx, request.schedule_id, owner_id), tx.now))
        start = await self._prepared(row, now)
        if request.request_id:
            # Keys of an admin are not those of the owner, in whose name the run starts.
            start = replace(start, request_id=f"{caller_id} {row.id} {request.request_id}")
        run = await self.commands.start_for_schedule(start, Origin.TRIGGER)
        return pb.TriggerScheduleResponse(run=convert.run(found(run, "run of schedule", row.id)))

    async def BackfillSchedule(
        self, request: pb.BackfillScheduleRequest, _context: Context
    ) -> pb.BackfillScheduleResponse:
        """Starts a run for each time of a span that has none."""
        owner_id = visible_owner()
        row, now = await self.database.read(lambda tx: (_visible(tx, request.schedule_id, owner_id), tx.now))
        times = _span(request, timetable_of(row), now)
        answer = pb.BackfillScheduleResponse()
        if not times:
            return answer
        start = await self._prepared(row, times[0])
        for time in times:  # one by one, so that they start in their order
            run = await self.commands.start_for_schedule(replace(start, scheduled_time=time), Origin.BACKFILL)
            if run is None:
                answer.already_started += 1
                continue
            started = Firing(row.id, time, Outcome.STARTED, Origin.BACKFILL, run.id, "", run.create_time, run.state)
            answer.started.append(firing(started))
        return answer

    async def PreviewSchedule(
        self, request: pb.PreviewScheduleRequest, _context: Context
    ) -> pb.PreviewScheduleResponse:
        """Returns the next times of an expression."""
        if request.count < 0:
            raise InvalidArgument.of("count", "must not be negative")
        count = page_size(request.count, _PREVIEW_LIMITS)
        timetable = expressed(request)
        now = await self.database.read(lambda tx: tx.now)
        after = moment(request.start_time) - 1 if request.HasField("start_time") else now
        times = await asyncio.to_thread(first_moments, timetable, after, count)
        end = moment(request.end_time) if request.HasField("end_time") else None
        return pb.PreviewScheduleResponse(times=timestamps(time for time in times if end is None or time <= end))

    async def _changed(self, work: Callable[[Transaction], Whole]) -> schedule_pb2.Schedule:
        whole = await self.database.write(work)
        self.on_changed()
        return await asyncio.to_thread(whole_schedule, whole)

    async def _prepared(self, row: Schedule, time: int) -> RunStart:
        start = await self.starts.prepare(row, time)
        if isinstance(start, Refusal):
            raise InvalidState(f"no run can be started: {start.message}")
        return start


def _visible(tx: Transaction, schedule_id: str, owner_id: str | None) -> Schedule:
    return found(schedules.get_schedule(tx, schedule_id, owner_id), "schedule", schedule_id)


def _locked(tx: Transaction, schedule_id: str, owner_id: str | None) -> Schedule:
    return found(schedules.lock_schedule(tx, schedule_id, owner_id), "schedule", schedule_id)


def _whole(tx: Transaction, row: Schedule) -> Whole:
    try:
        timetable = timetable_of(row)
    except InvalidArgument:  # a zone that this machine does not know, say: all else can be shown
        timetable = None
    firings = schedules.list_firings(tx, row.id, RECENT)
    return Whole(row, timetable, firings, schedules.open_runs(tx, row.id, MAX_OPEN_RUNS))


def _span(request: pb.BackfillScheduleRequest, timetable: Timetable, now: int) -> list[int]:
    for field, name in (("start_time", "startTime"), ("end_time", "endTime")):
        if not request.HasField(field):
            raise InvalidArgument.of(name, "is required")
    start, end = moment(request.start_time), moment(request.end_time)
    if start <= 0 or end < start:
        raise InvalidArgument.of("startTime", "must be a time up to endTime")
    if end > now:
        raise InvalidArgument.of("endTime", "is in the future")
    times = list(islice(takewhile(lambda time: time <= end, timetable.after(start - 1)), MAX_BACKFILL + 1))
    if len(times) > MAX_BACKFILL:
        raise InvalidArgument.of("endTime", f"more than {MAX_BACKFILL} times are in the span: take a shorter one")
    return times
