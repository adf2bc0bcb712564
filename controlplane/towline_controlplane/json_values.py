"""Free JSON at the door: what a value must be to be kept, and its one text form (I31).

Refuses what would be changed silently on the way or break a reader later: NaN and infinity, whole numbers beyond
±(2^53−1), NUL and lone surrogates in strings, deep nesting, large texts. Knows nothing of protobuf.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Final, cast

from towline_controlplane.errors import InvalidArgument, Violation

LARGEST_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 32
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


def violations(value: object, path: str, max_depth: int = MAX_DEPTH) -> Iterator[Violation]:
    """Yields each wrong place of a value made of dict, list, str, int, float, bool and None."""
    if isinstance(value, dict | list):
        if max_depth == 0:
            yield Violation(path, f"is nested deeper than {MAX_DEPTH} levels")
            return
        yield from _of_container(cast("dict[str, object] | list[object]", value), path, max_depth - 1)
    elif isinstance(value, str):
        yield from _of_string(value, path)
    elif isinstance(value, int | float):
        yield from _of_number(value, path)
    elif value is not None:
        yield Violation(path, "is not a JSON value")


def _of_container(value: dict[str, object] | list[object], path: str, depth: int) -> Iterator[Violation]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from violations(item, f"{path}[{index}]", depth)
        return
    for key, item in value.items():
        place = member(path, key)
        yield from _of_string(key, place)
        yield from violations(item, place, depth)


def _of_string(value: str, path: str) -> Iterator[Violation]:
    if "\0" in value:
        yield Violation(path, "holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        yield Violation(path, "holds a lone surrogate")


def _of_number(value: float, path: str) -> Iterator[Violation]:
    if not math.isfinite(value):
        yield Violation(path, "is not a finite number")
    elif abs(value) > LARGEST_INTEGER:
        yield Violation(path, "is beyond ±(2^53-1), where numbers lose digits: write it as a string")


def member(path: str, key: str) -> str:
    """Returns the path of an object's member, printable and of bounded length whatever the key is."""
    shown = key if len(key) <= 100 and key.isprintable() else ascii(key[:100])[1:-1]
    return f"{path}.{shown}" if path else shown


def object_of(text: str) -> Mapping[str, object]:
    """Returns the object that a stored text holds."""
    return cast("Mapping[str, object]", json.loads(text))
