"""Messages of `google.protobuf` that JSON writes in its own way: times, durations and free JSON."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from towline_gateway.codec.free_json import fill_list, fill_struct, fill_value, list_json, struct_json, value_json
from towline_gateway.codec.json_text import Json, text_of
from towline_gateway.codec.violations import Violations

VALUE: Final = "google.protobuf.Value"
TEXTUAL: Final = frozenset({"google.protobuf.Duration", "google.protobuf.Timestamp"})
DURATION_PATTERN: Final = r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_SECONDS = re.compile(DURATION_PATTERN)

Fill = Callable[[Any, Json, str, Violations], None]


def _fill_from_text(pattern: re.Pattern[str], complaint: str) -> Fill:
    def fill(target: Timestamp | Duration, value: Json, path: str, violations: Violations) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            violations.add(path, complaint)
            return
        try:
            target.FromJsonString(value)
        except ValueError:  # a month 13, a year 0, a duration beyond 10,000 years
            violations.add(path, complaint)

    return fill


def _duration_text(value: Duration) -> str:
    return f'"{value.ToJsonString()}"'


def _time_text(value: Timestamp) -> str:
    nanos = value.nanos
    if not 0 <= nanos < 1_000_000_000:
        return f'"{value.ToJsonString()}"'
    second = _second_text(value.seconds)
    if not nanos:
        return f'"{second}Z"'
    if nanos % 1_000:
        return f'"{second}.{nanos:09}Z"'
    return f'"{second}.{nanos // 1_000:06}Z"' if nanos % 1_000_000 else f'"{second}.{nanos // 1_000_000:03}Z"'


@lru_cache(maxsize=1_024)
def _second_text(seconds: int) -> str:
    return Timestamp(seconds=seconds).ToJsonString().removesuffix("Z")


def _tree(of: Callable[[Any], Json]) -> Callable[[Any], str]:
    def text(value: Any) -> str:
        return text_of(of(value))

    return text


FILLS: dict[str, Fill] = {
    "google.protobuf.Duration": _fill_from_text(
        _SECONDS, 'must be seconds with the suffix s, such as "3600s" or "0.5s"'
    ),
    "google.protobuf.ListValue": fill_list,
    "google.protobuf.Struct": fill_struct,
    "google.protobuf.Timestamp": _fill_from_text(_RFC3339, 'must be an RFC 3339 time, such as "2026-01-31T09:30:00Z"'),
    VALUE: fill_value,
}
WRITERS: dict[str, Callable[[Any], str]] = {
    "google.protobuf.Duration": _duration_text,
    "google.protobuf.ListValue": _tree(list_json),
    "google.protobuf.Struct": _tree(struct_json),
    "google.protobuf.Timestamp": _time_text,
    VALUE: _tree(value_json),
}


def check_known(full_name: str) -> None:
    """Raises `TypeError` for a `google.protobuf` message that has a JSON form which this codec does not speak."""
    if full_name.startswith("google.protobuf.") and full_name not in FILLS:
        raise TypeError(f"{full_name} has no JSON form here")
