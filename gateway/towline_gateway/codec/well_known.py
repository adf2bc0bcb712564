"""Messages of `google.protobuf` that JSON writes in its own way: times, durations and free JSON."""

import re
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from towline_gateway.codec.free_json import fill_list, fill_struct, fill_value, list_json, struct_json, value_json
from towline_gateway.codec.json_text import Json
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


def _text_json(value: Timestamp | Duration) -> Json:
    return value.ToJsonString()


FILLS: dict[str, Fill] = {
    "google.protobuf.Duration": _fill_from_text(
        _SECONDS, 'must be seconds with the suffix s, such as "3600s" or "0.5s"'
    ),
    "google.protobuf.ListValue": fill_list,
    "google.protobuf.Struct": fill_struct,
    "google.protobuf.Timestamp": _fill_from_text(_RFC3339, 'must be an RFC 3339 time, such as "2026-01-31T09:30:00Z"'),
    VALUE: fill_value,
}
WRITERS: dict[str, Callable[[Any], Json]] = {
    "google.protobuf.Duration": _text_json,
    "google.protobuf.ListValue": list_json,
    "google.protobuf.Struct": struct_json,
    "google.protobuf.Timestamp": _text_json,
    VALUE: value_json,
}


def check_known(full_name: str) -> None:
    """Raises `TypeError` for a `google.protobuf` message that has a JSON form which this codec does not speak."""
    if full_name.startswith("google.protobuf.") and full_name not in FILLS:
        raise TypeError(f"{full_name} has no JSON form here")
