"""JSON text to Python values and back.

Keeps what the standard parser hides (a key given twice) for the decoder to name, and refuses text that is not UTF-8
JSON. Numbers that JSON does not know (NaN, Infinity) pass here and are refused by the field that they stand in.
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class MalformedJsonError(ValueError):
    """The text is not JSON; says where."""


class RepeatedKeys(dict[str, Json]):
    """An object in which keys were given more than once."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Json]]) -> None:
        super().__init__(pairs)
        self.repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def parse(text: bytes) -> Json:
    """Returns the value that the text stands for, or raises `MalformedJsonError`."""
    try:
        return _decoder.decode(text.decode())
    except UnicodeDecodeError as error:
        raise MalformedJsonError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise MalformedJsonError(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise MalformedJsonError("nested too deeply") from None
    except ValueError:  # the only one left: the interpreter's limit on digits
        raise MalformedJsonError("a number has too many digits") from None


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else RepeatedKeys(pairs)


_decoder = json.JSONDecoder(object_pairs_hook=_object)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


quoted: Callable[[str], str] = json.encoder.encode_basestring
"""A text as a JSON string."""


def render(value: Json) -> bytes:
    """Returns compact UTF-8 JSON without line breaks; raises `ValueError` on a number that JSON does not know."""
    return text_of(value).encode()


def text_of(value: Json) -> str:
    """Returns the same as text."""
    return _encoder.encode(value)


def kind_of(value: Json) -> str:
    """Names the JSON type of a value for a message: "a string", "an object"."""
    return _KINDS.get(type(value), "an object")


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
}
