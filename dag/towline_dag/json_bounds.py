"""What free JSON must be to be kept (I31): of bounded depth, with numbers and texts that nothing on the way changes.

Refuses NaN and infinity, whole numbers beyond ±(2^53−1), NUL and lone surrogates in strings, deep nesting.
"""

import math
from collections.abc import Iterator
from typing import Final, cast

from towline_dag.violation import Violation

LARGEST_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 32


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
