"""Strict JSON: what the control plane will record as an output. Pure.

Refuses what parsers disagree about: NaN and infinities, integers beyond ±(2^53-1), NUL and unpaired surrogates, bytes
that are not UTF-8, and nesting that costs a reader its stack.
"""

import json
import math
from typing import Any, cast

MAX_DEPTH = 31
MAX_INTEGER = 2**53 - 1


class InvalidDocument(Exception):
    """Not strict JSON; the message says where or why."""


def parse(document: bytes) -> Any:
    """Returns the value of `document`, or raises InvalidDocument."""
    try:
        value = _DECODER.decode(document.decode())
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise InvalidDocument(_TOO_DEEP) from None
    except ValueError as error:
        raise InvalidDocument(str(error)) from None
    # Both checks walk the value, so they are made only where the bytes can hold an offender.
    escaped = b"\\u" in document
    if escaped or document.count(b"[") + document.count(b"{") > MAX_DEPTH:
        _walk(value, strings=escaped)
    return value


def _walk(root: Any, *, strings: bool) -> None:
    waiting = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            _check_text(value)
            continue
        if depth > MAX_DEPTH:
            raise InvalidDocument(_TOO_DEEP)
        kinds = (str, dict, list) if strings else (dict, list)
        waiting += [(child, depth + 1) for child in _children(value) if isinstance(child, kinds)]


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value)
        return [*pairs, *pairs.values()]
    return cast("list[Any]", value) if isinstance(value, list) else []


def _check_text(text: str) -> None:
    if "\0" in text:
        raise InvalidDocument("a string holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidDocument("a string holds half of a surrogate pair") from None


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(value := int(digits)) > MAX_INTEGER:
        raise ValueError(f"the integer {digits[:20]} is outside of ±(2^53-1)")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_real, parse_constant=_constant)
