"""The calls of `ScheduleService`, a part of `client`."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct

from towline.v1 import schedule_service_pb2 as pb
from towline.v1.run_pb2 import Run
from towline.v1.schedule_pb2 import Schedule
from towline_sdk.documents import JsonInput, parse_value
from towline_sdk.pages import FIRST_PAGE, Page
from towline_sdk.transport import Transport

NO_LIMIT: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""As `start_time` or `end_time` of an update it takes the limit away."""


class NotGiven(Enum):
    """Tells an input that is not given from one that is null."""

    NOT_GIVEN = "not given"


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """What a schedule does; None leaves it to the server, or as it is. Either `cron` or `interval` is given."""

    cron: str | None = None
    interval: timedelta | None = None
    time_zone: str | None = None
    version_id: str | None = None
    input: "JsonInput | NotGiven" = NotGiven.NOT_GIVEN
    priority: int | None = None
    labels: Mapping[str, str] | None = None
    overlap_policy: Schedule.OverlapPolicy | None = None
    catch_up_window: timedelta | None = None
    catch_up_limit: int | None = None
    jitter: timedelta | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    note: str | None = None

    def given(self) -> dict[str, Any]:
        """Returns the fields of a request that are given, but labels, which requests carry differently."""
        names = [name for name in self.__dataclass_fields__ if name not in ("input", "labels")]
        fields = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if not isinstance(self.input, NotGiven):
            fields["input"] = parse_value(self.input, "input")
        return fields


@dataclass(frozen=True, slots=True)
class ScheduleCalls:
    """Schedules, and runs of them out of turn."""

    _transport: Transport

    async def create(
        self, name: str, workflow_id: str, settings: ScheduleSettings, *, paused: bool = False
    ) -> Schedule:
        """Creates a schedule."""
        request = pb.CreateScheduleRequest(
            name=name, workflow_id=workflow_id, labels=settings.labels, paused=paused, **settings.given()
        )
        return (await self._transport.call(request, pb.CreateScheduleResponse)).schedule

    async def list(self, page: Page = FIRST_PAGE) -> pb.ListSchedulesResponse:
        """Returns a page of schedules, newest first."""
        request = pb.ListSchedulesRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, pb.ListSchedulesResponse)

    async def get(self, schedule_id: str) -> Schedule:
        """Returns a schedule with its times, what became of the last ones, and why nothing runs."""
        return (
            await self._transport.call(pb.GetScheduleRequest(schedule_id=schedule_id), pb.GetScheduleResponse)
        ).schedule

    async def update(
        self, schedule_id: str, settings: ScheduleSettings, *, name: str | None = None, etag: str = ""
    ) -> Schedule:
        """Changes what is given; with an `etag` only the schedule that has it."""
        request = pb.UpdateScheduleRequest(schedule_id=schedule_id, name=name, etag=etag, **settings.given())
        if settings.labels is not None:
            labels = Struct()
            labels.update(settings.labels)
            request.labels.CopyFrom(labels)
        return (await self._transport.call(request, pb.UpdateScheduleResponse)).schedule

    async def delete(self, schedule_id: str, *, etag: str = "") -> None:
        """Deletes a schedule; its runs stay."""
        request = pb.DeleteScheduleRequest(schedule_id=schedule_id, etag=etag)
        await self._transport.call(request, pb.DeleteScheduleResponse)

    async def pause(self, schedule_id: str, note: str = "") -> Schedule:
        """Lets no time come until it is resumed."""
        request = pb.PauseScheduleRequest(schedule_id=schedule_id, note=note)
        return (await self._transport.call(request, pb.PauseScheduleResponse)).schedule

    async def resume(self, schedule_id: str) -> Schedule:
        """Goes on with the next time behind now."""
        request = pb.ResumeScheduleRequest(schedule_id=schedule_id)
        return (await self._transport.call(request, pb.ResumeScheduleResponse)).schedule

    async def trigger(self, schedule_id: str, request_id: str = "") -> Run:
        """Starts a run now, exactly once however often the call has to be sent."""
        request = pb.TriggerScheduleRequest(schedule_id=schedule_id, request_id=request_id or uuid.uuid4().hex)
        return (await self._transport.call(request, pb.TriggerScheduleResponse)).run

    async def backfill(self, schedule_id: str, start_time: datetime, end_time: datetime) -> pb.BackfillScheduleResponse:
        """Starts a run for each time of a span in the past that has none."""
        request = pb.BackfillScheduleRequest(schedule_id=schedule_id, start_time=start_time, end_time=end_time)
        return await self._transport.call(request, pb.BackfillScheduleResponse)

    async def preview(self, settings: ScheduleSettings, count: int = 0) -> pb.PreviewScheduleResponse:
        """Returns the next times of an expression or an interval, between its start and end time."""
        request = pb.PreviewScheduleRequest(
            cron=settings.cron or "",
            interval=settings.interval,
            time_zone=settings.time_zone or "",
            count=count,
            start_time=settings.start_time,
            end_time=settings.end_time,
        )
        return await self._transport.call(request, pb.PreviewScheduleResponse)
