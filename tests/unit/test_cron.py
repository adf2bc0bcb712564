"""Cron expressions and their moments: tables, DST, and a walk through every minute beside them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline_controlplane.engine.cron import CronError, parse_cron
from towline_controlplane.engine.timetable import (
    SECOND,
    CronTimetable,
    IntervalTimetable,
    delay,
    first_moments,
    next_moment,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60 * SECOND


def moment(text: str) -> int:
    return (datetime.fromisoformat(text).astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def text(found: int) -> str:
    return f"{EPOCH + timedelta(microseconds=found):%Y-%m-%dT%H:%MZ}"


def table(expression: str, zone: str = "UTC") -> CronTimetable:
    return CronTimetable(parse_cron(expression), ZoneInfo(zone))


@pytest.mark.parametrize(
    ("expression", "following"),
    [
        ("* * * * *", ["2026-01-01T00:01Z", "2026-01-01T00:02Z"]),
        ("*/20 3 * * *", ["2026-01-01T03:00Z", "2026-01-01T03:20Z", "2026-01-01T03:40Z", "2026-01-02T03:00Z"]),
        ("5/25 0 * * *", ["2026-01-01T00:05Z", "2026-01-01T00:30Z", "2026-01-01T00:55Z", "2026-01-02T00:05Z"]),
        ("1,2-4/2 0 1 * *", ["2026-01-01T00:01Z", "2026-01-01T00:02Z", "2026-01-01T00:04Z", "2026-02-01T00:01Z"]),
        ("0 12 * * mon-fri", ["2026-01-01T12:00Z", "2026-01-02T12:00Z", "2026-01-05T12:00Z"]),
        ("0 12 * * 0", ["2026-01-04T12:00Z", "2026-01-11T12:00Z"]),
        ("0 12 * * 7", ["2026-01-04T12:00Z", "2026-01-11T12:00Z"]),
        ("0 12 * * 5-7", ["2026-01-02T12:00Z", "2026-01-03T12:00Z", "2026-01-04T12:00Z", "2026-01-09T12:00Z"]),
        ("0 0 31 * *", ["2026-01-31T00:00Z", "2026-03-31T00:00Z"]),
        ("0 0 29 2 *", ["2028-02-29T00:00Z", "2032-02-29T00:00Z"]),
        # Either day is enough once both are restricted; a field that begins with * restricts nothing.
        ("0 0 13 * FRI", ["2026-01-02T00:00Z", "2026-01-09T00:00Z", "2026-01-13T00:00Z", "2026-01-16T00:00Z"]),
        ("0 0 */10 * fri", ["2026-05-01T00:00Z", "2026-07-31T00:00Z"]),
        ("@hourly", ["2026-01-01T01:00Z", "2026-01-01T02:00Z"]),
        ("@daily", ["2026-01-02T00:00Z"]),
        ("@midnight", ["2026-01-02T00:00Z"]),
        ("@Weekly", ["2026-01-04T00:00Z"]),
        ("@monthly", ["2026-02-01T00:00Z"]),
        ("@yearly", ["2027-01-01T00:00Z"]),
        ("@annually", ["2027-01-01T00:00Z"]),
        ("  0   0 1  JAN,jul  * ", ["2026-07-01T00:00Z", "2027-01-01T00:00Z"]),
    ],
)
def test_an_expression_means_these_times(expression: str, following: list[str]) -> None:
    found = first_moments(table(expression), moment("2026-01-01T00:00Z"), len(following))
    assert [text(each) for each in found] == following


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("0 * * * * *", "has 6 fields"),
        ("60 * * * *", "minute: 60 is not in 0 to 59"),
        ("* 24 * * *", "hour: 24 is not in 0 to 23"),
        ("* * 0 * *", "day of the month: 0 is not in 1 to 31"),
        ("* * * 13 *", "month: 13 is not in 1 to 12"),
        ("* * * * 8", "day of the week: 8 is not in 0 to 7"),
        ("-1 * * * *", "minute: '' is not a number"),
        ("1- * * * *", "minute: '' is not a number"),
        ("5-1 * * * *", "minute: 5-1 runs backwards"),
        ("*/0 * * * *", "minute: a step must be 1 to 59"),
        ("*/x * * * *", "minute: a step must be 1 to 59"),
        ("1,,2 * * * *", "minute: '' is not a number"),
        ("mon * * * *", "minute: 'mon' is not a number"),
        ("* * * * monday", "day of the week: 'monday' is not a number or a name"),
        ("٣ * * * *", "minute: '٣' is not a number"),
        ("1_0 * * * *", "minute: '1_0' is not a number"),
        ("99999999999999999999 * * * *", "is not a number"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("@reboot", "@reboot is none of @yearly"),
        ("@every 1h", "is none of"),
        ("* " * 101, "more than 200 characters"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place(expression: str, wrong: str) -> None:
    with pytest.raises(CronError) as refused:
        parse_cron(expression)
    assert wrong in refused.value.message


@pytest.mark.parametrize(
    ("zone", "expression", "after", "following"),
    [
        # Clocks go from 02:00 to 03:00: what they skip comes at 03:00, once.
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        ("Europe/Berlin", "*/20 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T01:00Z", "2026-03-30T00:00Z"]),
        ("Europe/Berlin", "0,30 2-3 29 3 *", "2026-03-29T00:00+01:00", ["2026-03-29T01:00Z", "2026-03-29T01:30Z"]),
        ("Europe/Berlin", "0 * 29 3 *", "2026-03-29T00:30+01:00", ["2026-03-29T00:00Z", "2026-03-29T01:00Z"]),
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00-05:00", ["2026-03-08T07:00Z", "2026-03-09T06:30Z"]),
        # Clocks go from 03:00 back to 02:00: what they repeat comes once, the first time.
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00+02:00", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("Europe/Berlin", "*/30 * 25 10 *", "2026-10-25T02:00+02:00", ["2026-10-25T00:30Z", "2026-10-25T02:00Z"]),
        ("Europe/Berlin", "45 2 * * *", "2026-10-25T02:10+01:00", ["2026-10-26T01:45Z"]),
        ("America/New_York", "30 1 * * *", "2026-10-31T12:00-04:00", ["2026-11-01T05:30Z", "2026-11-02T06:30Z"]),
        # Half an hour, at midnight, and a whole day that never was.
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00+10:30", ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00+11:00", ["2026-04-04T14:45Z", "2026-04-05T15:15Z"]),
        ("America/Santiago", "0 0 * * *", "2026-09-05T12:00-04:00", ["2026-09-06T04:00Z", "2026-09-07T03:00Z"]),
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T13:00-10:00", ["2011-12-30T10:00Z", "2011-12-30T22:00Z"]),
        ("Asia/Kolkata", "0 9 * * *", "2026-06-01T00:00Z", ["2026-06-01T03:30Z"]),
    ],
)
def test_changes_of_the_clock_neither_lose_nor_double_a_time(
    zone: str, expression: str, after: str, following: list[str]
) -> None:
    timetable = table(expression, zone)
    found = first_moments(timetable, moment(after), len(following))
    assert [text(each) for each in found] == following
    assert [*islice(timetable.until(found[-1]), len(found))] == found[::-1]


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu")
NEAR = ("2026-03-29T00:00Z", "2026-03-08T05:00Z", "2026-10-25T00:00Z", "2026-11-01T04:00Z", "2026-10-03T14:00Z",
        "2026-04-04T13:00Z", "2026-09-06T02:00Z", "2026-02-27T00:00Z", "2024-02-28T00:00Z")  # fmt: skip


@st.composite
def fields(draw: st.DrawFn, lowest: int, highest: int) -> tuple[str, frozenset[int], bool]:
    """Draws a field, the values that it means, and whether it restricts."""
    parts, values = list[str](), set[int]()
    if draw(st.booleans()):
        step = draw(st.integers(1, min(highest, 23)))
        return f"*/{step}" if step > 1 else "*", frozenset(range(lowest, highest + 1, step)), False
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(lowest, highest))
        last, step = draw(st.integers(first, highest)), draw(st.integers(1, min(highest, 23)))
        parts.append(f"{first}-{last}/{step}")
        values |= {value for value in range(first, last + 1) if (value - first) % step == 0}
    return ",".join(parts), frozenset(values), True


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, list[tuple[frozenset[int], bool]]]:
    drawn = [draw(fields(*bounds)) for bounds in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))]
    return " ".join(word for word, _, _ in drawn), [(values, restricts) for _, values, restricts in drawn]


def comes_at(wall: datetime, wanted: list[tuple[frozenset[int], bool]]) -> bool:
    (minutes, _), (hours, _), (days, by_day), (months, _), (weekdays, by_weekday) = wanted
    if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
        return False
    of_month = wall.day in days
    of_week = bool({wall.weekday() + 1, (wall.weekday() + 1) % 7} & weekdays)
    return of_month or of_week if by_day and by_weekday else of_month and of_week


def walk(wanted: list[tuple[frozenset[int], bool]], zone: str, start: int, end: int) -> Iterator[int]:
    """Looks at the clock every minute, and at every minute that it has jumped over."""
    seen = (EPOCH + timedelta(microseconds=start)).astimezone(ZoneInfo(zone))
    for at in range(start + MINUTE, end + 1, MINUTE):
        now = (EPOCH + timedelta(microseconds=at)).astimezone(ZoneInfo(zone))
        before, wall = seen.replace(tzinfo=None, fold=0), now.replace(tzinfo=None, fold=0)
        skipped = max(int((wall - before) / timedelta(minutes=1)) - 1, 0)
        shown = [wall] if now.fold == 0 else []
        shown += [wall - timedelta(minutes=back) for back in range(1, skipped + 1)]
        if any(comes_at(each, wanted) for each in shown):
            yield at
        seen = now


@settings(max_examples=80, deadline=None)
@given(drawn=expressions(), zone=st.sampled_from(ZONES), near=st.sampled_from(NEAR), shift=st.integers(0, 300))
def test_the_times_are_those_that_a_walk_through_every_minute_finds(
    drawn: tuple[str, list[tuple[frozenset[int], bool]]], zone: str, near: str, shift: int
) -> None:
    expression, wanted = drawn
    try:
        timetable = table(expression, zone)
    except CronError as refused:
        if "never comes" not in refused.message:
            raise
        return
    start = moment(near) - shift * MINUTE
    end = start + 2 * 24 * 60 * MINUTE
    found = list(walk(wanted, zone, start, end))
    assert [*islice(timetable.after(start), len(found))] == found
    assert [*islice(timetable.until(end), len(found))] == found[::-1]
    if found:
        middle = found[len(found) // 2]
        assert next_moment(timetable, middle - 1, None) == middle
        assert next(timetable.until(middle)) == middle


@given(interval=st.integers(1, 10**6), anchor=st.integers(0, 2 * 10**9), now=st.integers(0, 2 * 10**9))
def test_an_interval_counts_from_its_anchor_both_ways(interval: int, anchor: int, now: int) -> None:
    timetable = IntervalTimetable(interval * SECOND, anchor * SECOND)
    first, second = first_moments(timetable, now * SECOND, 2)
    assert now * SECOND < first <= (now + interval) * SECOND
    assert second - first == interval * SECOND
    assert (first - anchor * SECOND) % (interval * SECOND) == 0
    assert next(timetable.until(first)) == first


def test_nothing_comes_behind_the_end() -> None:
    hourly = IntervalTimetable(3600 * SECOND)
    assert next_moment(hourly, 0, 3600 * SECOND) == 3600 * SECOND
    assert next_moment(hourly, 0, 3600 * SECOND - 1) is None


@given(at=st.integers(0, 2**50), spacing=st.integers(1, 10**10), jitter=st.integers(0, 10**10))
def test_a_delay_is_the_same_for_ever_and_ends_before_the_next_time(at: int, spacing: int, jitter: int) -> None:
    found = delay("s", at, at + spacing, jitter)
    assert found == delay("s", at, at + spacing, jitter)
    assert 0 <= found <= jitter
    assert found < spacing


def test_delays_spread_over_the_whole_jitter() -> None:
    tenths = {delay(f"schedule-{each}", 0, None, 10 * SECOND) // SECOND for each in range(200)}
    assert tenths == set(range(10))
