"""When a schedule is due: the moments of a cron expression in a time zone, or of an interval.

Moments are µs since the epoch. A wall time that a zone skips (clocks are put forward) comes at the first moment after
the gap; one that a zone repeats (clocks are put back) comes once, the first time. So each moment is one run at most.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Final, Protocol

from towline_controlplane.engine.cron import Cron

SECOND: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
LATEST: Final = (datetime(9_000, 1, 1, tzinfo=UTC) - _EPOCH) // _US
"""No moment is looked for behind this one."""


class Timetable(Protocol):
    """The moments at which something is due, in their order."""

    def after(self, moment: int) -> Iterator[int]:
        """Yields the moments behind `moment`."""
        ...

    def until(self, moment: int) -> Iterator[int]:
        """Yields the moments up to and with `moment`, the latest first."""
        ...


@dataclass(frozen=True, slots=True)
class CronTimetable:
    """The moments of a cron expression where the clocks of a zone show it."""

    cron: Cron
    zone: tzinfo

    def after(self, moment: int) -> Iterator[int]:
        """Yields the moments behind `moment`."""
        last = moment
        for wall in self.cron.from_wall_time(self._wall(moment)):
            if (found := moment_of(wall, self.zone)) > last:
                yield found
                last = found

    def until(self, moment: int) -> Iterator[int]:
        """Yields the moments up to and with `moment`, the latest first."""
        last = moment + 1
        local = self._local(moment)
        # While clocks show a time for the second time, later wall times have been there for the first.
        repeated = _offset(local.replace(fold=0)) - _offset(local)
        for wall in self.cron.before_wall_time(local.replace(tzinfo=None, fold=0) + repeated):
            if (found := moment_of(wall, self.zone)) < last:
                yield found
                last = found

    def _local(self, moment: int) -> datetime:
        return (_EPOCH + moment * _US).astimezone(self.zone)

    def _wall(self, moment: int) -> datetime:
        return self._local(moment).replace(tzinfo=None, fold=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class IntervalTimetable:
    """A moment every `interval` µs, of which `anchor` is one."""

    interval: int
    anchor: int = 0

    def after(self, moment: int) -> Iterator[int]:
        """Yields the moments behind `moment`."""
        found = moment + self.interval - (moment - self.anchor) % self.interval
        while found <= LATEST:
            yield found
            found += self.interval

    def until(self, moment: int) -> Iterator[int]:
        """Yields the moments up to and with `moment`, the latest first."""
        found = moment - (moment - self.anchor) % self.interval
        while found >= 0:
            yield found
            found -= self.interval


def moment_of(wall: datetime, zone: tzinfo) -> int:
    """Returns the moment at which clocks show a wall time first, or the end of the gap that skips it."""
    local = wall.replace(tzinfo=zone)
    moment = local.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None, fold=0) != wall:
        # PEP 495: in a gap the two folds read the clock as before and as after it, on either side of it.
        moment = _end_of_gap(local.replace(fold=1).astimezone(UTC), moment, zone)
    return (moment - _EPOCH) // _US


def next_moment(timetable: Timetable, after: int, end: int | None) -> int | None:
    """Returns the first moment behind `after`; None if none comes, or not up to `end`."""
    found = next(timetable.after(after), None)
    return None if found is None or (end is not None and found > end) else found


def first_moments(timetable: Timetable, after: int, count: int) -> list[int]:
    """Returns the next moments behind `after`."""
    return list(islice(timetable.after(after), count))


def delay(schedule_id: str, moment: int, following: int | None, jitter: int) -> int:
    """Returns how much later than `moment` it is due (µs): the same for ever, spread evenly, before the `following`."""
    room = jitter if following is None else min(jitter, following - moment - SECOND)
    if room <= 0:
        return 0
    digest = hashlib.sha256(f"{schedule_id}:{moment}".encode()).digest()
    return int.from_bytes(digest[:8]) % room


def _end_of_gap(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """Returns the first second between the two that has the offset of `after`."""
    target = after.astimezone(zone).utcoffset()
    low, high = before, after
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == target:
            high = middle
        else:
            low = middle
    return high


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()
