"""Free JSON at the door: refused unless it can be kept (I31), and its one text form. Knows nothing of protobuf."""

import json
from collections.abc import Mapping
from typing import Final, cast

from towline_controlplane.errors import InvalidArgument
from towline_dag.json_bounds import MAX_DEPTH, violations

MAX_OUTPUT_DEPTH: Final = 31
"""One less than MAX_DEPTH: a step's output also travels inside the output of its run, within protobuf's own limit."""
MAX_BYTES: Final = 1 << 20
MAX_VIOLATIONS: Final = 20


def to_text(value: object) -> str:
    """Returns the compact JSON text of a checked value; object members keep their order."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def canonical_text(value: object) -> str:
    """Returns the same text for equal values, whatever the order of their members: for digests."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def parse(data: bytes, path: str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> object:
    """Returns the value of a JSON text; raises InvalidArgument with the path of each wrong place below `path`."""
    if len(data) > max_bytes:
        raise InvalidArgument.of(path, f"is larger than {max_bytes} bytes")
    try:
        value: object = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise InvalidArgument.of(path, "is not JSON in UTF-8") from None
    check(value, path, max_depth=max_depth)
    return value


def check(value: object, path: str, *, max_depth: int = MAX_DEPTH) -> None:
    """Raises InvalidArgument that names up to 20 wrong places below `path`."""
    wrong = [violation for violation, _ in zip(violations(value, path, max_depth), range(MAX_VIOLATIONS), strict=False)]
    if wrong:
        raise InvalidArgument(wrong)


def object_of(text: str) -> Mapping[str, object]:
    """Returns the object that a stored text holds."""
    return cast("Mapping[str, object]", json.loads(text))
