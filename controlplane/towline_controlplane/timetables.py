"""The timetables of schedules: their expressions with the rules of their time zones, as this machine knows them.

The rules come from the system, else from the package `tzdata`.
"""

import zoneinfo
from functools import lru_cache

from towline_controlplane.engine.cron import CronError, parse_cron
from towline_controlplane.engine.timetable import CronTimetable, IntervalTimetable, Timetable
from towline_controlplane.errors import InvalidArgument
from towline_controlplane.schedule_records import Schedule

DEFAULT_ZONE = "UTC"


def timetable(cron: str | None, interval: int | None, time_zone: str, start_time: int | None) -> Timetable:
    """Returns the times of an expression, or of an interval from the start time on; raises InvalidArgument."""
    zone = zone_named(time_zone or DEFAULT_ZONE)
    if cron is None:
        return IntervalTimetable(interval or 0, start_time or 0)
    try:
        return CronTimetable(parse_cron(cron), zone)
    except CronError as error:
        raise InvalidArgument.of("cron", error.message) from None


def timetable_of(schedule: Schedule) -> Timetable:
    """Returns the times of a schedule; raises InvalidArgument if they can no longer be read."""
    return timetable(schedule.cron, schedule.interval, schedule.time_zone, schedule.start_time)


@lru_cache(maxsize=1_024)
def zone_named(name: str) -> zoneinfo.ZoneInfo:
    """Returns the rules of an IANA zone; raises InvalidArgument."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise InvalidArgument.of("timeZone", "is not the name of an IANA time zone, such as Europe/Berlin") from None
