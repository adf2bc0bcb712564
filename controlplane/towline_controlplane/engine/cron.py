"""Cron expressions: five fields, or a name such as `@hourly`, and the wall times that they mean.

Days are those of cron: if both the day of the month and the day of the week are restricted, either may match. A field
counts as restricted unless it begins with `*`. Wall times know no zone; `timetable` makes moments of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

_MAX_CHARACTERS: Final = 200
_LAST_YEAR: Final = 9_000
_YEARS_AHEAD: Final = 9
"""The rarest date is the 29th of February, which may be eight years away."""

_NAMES: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class CronError(Exception):
    """An expression cannot be read, or never comes; the message is for its author."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class _Field:
    title: str
    lowest: int
    highest: int
    names: Mapping[str, int]


_FIELDS: Final = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of the month", 1, 31, {}),
    _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    # Both 0 and 7 are Sunday.
    _Field("day of the week", 0, 7, {name: number for number, name in enumerate(_WEEKDAYS)}),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression: the sorted values of each field. `weekdays` count from 0, Sunday."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    """A day of the month or of the week is enough."""

    def matches_day(self, day: date) -> bool:
        """Tells whether it comes on a day at all."""
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        fits = of_month or of_week if self.either_day else of_month and of_week
        return fits and day.month in self.months

    def from_wall_time(self, start: datetime) -> Iterator[datetime]:
        """Yields the wall times from `start` on, in their order; ends where the calendar does."""
        day, last_year = start.date(), min(start.year + _YEARS_AHEAD, _LAST_YEAR)
        while day.year <= last_year:
            if self.matches_day(day):
                last_year = min(day.year + _YEARS_AHEAD, _LAST_YEAR)
                for hour in self.hours:
                    for minute in self.minutes:
                        time = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - a wall time
                        if time >= start:
                            yield time
            day = self._day_after(day)

    def before_wall_time(self, end: datetime) -> Iterator[datetime]:
        """Yields the wall times up to and with `end`, the latest first."""
        day, first_year = end.date(), max(end.year - _YEARS_AHEAD, 1_970)
        while day.year >= first_year:
            if self.matches_day(day):
                first_year = max(day.year - _YEARS_AHEAD, 1_970)
                for hour in reversed(self.hours):
                    for minute in reversed(self.minutes):
                        time = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - a wall time
                        if time <= end:
                            yield time
            day = self._day_before(day)

    def _day_after(self, day: date) -> date:
        if day.month in self.months:
            return day + timedelta(days=1)
        return date(day.year + day.month // 12, day.month % 12 + 1, 1)

    def _day_before(self, day: date) -> date:
        return day - timedelta(days=1 if day.month in self.months else day.day)


def parse_cron(expression: str) -> Cron:
    """Returns what an expression means; raises CronError."""
    text = expression.strip()
    if len(text) > _MAX_CHARACTERS:
        raise CronError(f"has more than {_MAX_CHARACTERS} characters")
    if text.startswith("@"):
        if text.lower() not in _NAMES:
            raise CronError(f"{text} is none of {', '.join(_NAMES)}")
        text = _NAMES[text.lower()]
    words = text.split()
    if len(words) != len(_FIELDS):
        raise CronError(f"has {len(words)} fields, not five: minute hour day-of-month month day-of-week")
    minutes, hours, days, months, weekdays = (_values(*each) for each in zip(_FIELDS, words, strict=True))
    cron = Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=frozenset(weekday % 7 for weekday in weekdays),
        either_day=not words[2].startswith("*") and not words[4].startswith("*"),
    )
    if next(cron.from_wall_time(datetime(2_000, 1, 1)), None) is None:  # noqa: DTZ001 - a wall time
        raise CronError("never comes: no such day is in the calendar")
    return cron


def _values(field: _Field, word: str) -> frozenset[int]:
    return frozenset(value for part in word.split(",") for value in _span(field, part))


def _span(field: _Field, part: str) -> range:
    bounds, slash, step = part.partition("/")
    first, dash, last = bounds.partition("-")
    if bounds == "*":
        low, high = field.lowest, field.highest
    else:
        low = _number(field, first)
        # `5/15` means from 5 on, as if `-` and the highest value stood there.
        high = _number(field, last) if dash else field.highest if slash else low
    if high < low:
        raise CronError(f"{field.title}: {bounds} runs backwards")
    every = _step(field, step) if slash else 1
    return range(low, high + 1, every)


def _number(field: _Field, word: str) -> int:
    known = field.names.get(word.lower())
    if known is not None:
        return known
    if not _is_number(word):
        raise CronError(f"{field.title}: {word!r} is not a number{' or a name' if field.names else ''}")
    if not field.lowest <= int(word) <= field.highest:
        raise CronError(f"{field.title}: {word} is not in {field.lowest} to {field.highest}")
    return int(word)


def _step(field: _Field, word: str) -> int:
    if not _is_number(word) or not 0 < int(word) <= field.highest:
        raise CronError(f"{field.title}: a step must be 1 to {field.highest}")
    return int(word)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 4
