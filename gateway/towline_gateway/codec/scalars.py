"""Scalar fields: JSON value to protobuf value and back, one reader and one writer per protobuf type.

Numbers are JSON numbers in both directions; 64-bit integers are also read from decimal strings, and written as such
only beyond ±(2^53−1), where a JSON number would lose digits. Enums are plain names; the UNSPECIFIED zero is no name.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from towline_gateway.codec.json_text import Json, kind_of, quoted
from towline_gateway.codec.violations import Refused

MAX_EXACT_INTEGER: Final = 2**53 - 1
_MAX_FLOAT32: Final = 3.4028234663852886e38
_DECIMAL = re.compile(r"-?[0-9]{1,20}")

Reader = Callable[[Json], Any]
Writer = Callable[[Any], str]


def text(value: Json) -> str:
    """A string that protobuf can carry: no NUL, no unpaired surrogate."""
    if type(value) is not str:
        raise Refused(f"must be a string, not {kind_of(value)}")
    if value.isascii():
        if "\0" in value:
            raise Refused("must not contain NUL")
        return value
    return _wide_text(value)


def _wide_text(value: str) -> str:
    if "\0" in value:
        raise Refused("must not contain NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused("must not contain an unpaired surrogate") from None
    return value


def _boolean(value: Json) -> bool:
    if type(value) is not bool:
        raise Refused(f"must be true or false, not {kind_of(value)}")
    return value


def _octets(value: Json) -> bytes:
    try:
        return base64.b64decode(text(value), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("must be a base64 string") from None


def _integer(low: int, high: int) -> Reader:
    def read(value: Json) -> int:
        if type(value) is not int:
            value = _integral(value)
        if not low <= value <= high:
            raise Refused(f"must be within {low} and {high}")
        return value

    return read


def _integral(value: Json) -> int:
    if type(value) is float and value.is_integer():
        return int(value)
    what = "a fraction" if type(value) is float else kind_of(value)
    raise Refused(f"must be an integer, not {what}")


def _wide_integer(low: int, high: int) -> Reader:
    read = _integer(low, high)

    def read_number_or_decimal(value: Json) -> int:
        return read(int(value) if type(value) is str and _DECIMAL.fullmatch(value) else value)

    return read_number_or_decimal


def number(value: Json) -> float:
    """A finite number."""
    if type(value) is not int and type(value) is not float:
        raise Refused(f"must be a number, not {kind_of(value)}")
    try:
        result = float(value)
    except OverflowError:
        raise Refused("must be a finite number") from None
    if not math.isfinite(result):
        raise Refused("must be a finite number")
    return result


def _single(value: Json) -> float:
    result = number(value)
    if abs(result) > _MAX_FLOAT32:
        raise Refused("must be within the range of a 32-bit float")
    return result


def _enum_reader(enum: EnumDescriptor) -> Reader:
    numbers = {name: enum.values_by_name[name].number for name in enum_names(enum)}
    allowed = f"must be one of {', '.join(numbers)}"

    def read(value: Json) -> int:
        if type(value) is not str or value not in numbers:
            raise Refused(allowed)
        return numbers[value]

    return read


def enum_names(enum: EnumDescriptor) -> list[str]:
    """The names that JSON knows: all but the UNSPECIFIED zero."""
    return [value.name for value in enum.values if not _is_unspecified(value.number, value.name)]


def _is_unspecified(number: int, name: str) -> bool:
    return number == 0 and name.endswith("UNSPECIFIED")


def _enum_writer(enum: EnumDescriptor) -> Writer:
    names = {value.number: quoted(value.name) for value in enum.values}

    def write(value: int) -> str:
        return names.get(value) or str(value)  # a number that a newer server knows must survive

    return write


def _boolean_out(value: bool) -> str:
    return "true" if value else "false"


def _number_out(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"JSON knows no {value}")
    return repr(value)


def _wide_integer_out(value: int) -> str:
    return str(value) if -MAX_EXACT_INTEGER <= value <= MAX_EXACT_INTEGER else f'"{value}"'


def _octets_out(value: bytes) -> str:
    return f'"{base64.b64encode(value).decode()}"'


_F = FieldDescriptor
_INT32 = _integer(-(2**31), 2**31 - 1)
_UINT32 = _integer(0, 2**32 - 1)
_INT64 = _wide_integer(-(2**63), 2**63 - 1)
_UINT64 = _wide_integer(0, 2**64 - 1)

_READERS: dict[int, Reader] = {
    _F.TYPE_BOOL: _boolean,
    _F.TYPE_BYTES: _octets,
    _F.TYPE_DOUBLE: number,
    _F.TYPE_FIXED32: _UINT32,
    _F.TYPE_FIXED64: _UINT64,
    _F.TYPE_FLOAT: _single,
    _F.TYPE_INT32: _INT32,
    _F.TYPE_INT64: _INT64,
    _F.TYPE_SFIXED32: _INT32,
    _F.TYPE_SFIXED64: _INT64,
    _F.TYPE_SINT32: _INT32,
    _F.TYPE_SINT64: _INT64,
    _F.TYPE_STRING: text,
    _F.TYPE_UINT32: _UINT32,
    _F.TYPE_UINT64: _UINT64,
}
_WRITERS: dict[int, Writer] = {
    _F.TYPE_BOOL: _boolean_out,
    _F.TYPE_BYTES: _octets_out,
    _F.TYPE_DOUBLE: _number_out,
    _F.TYPE_FIXED32: str,
    _F.TYPE_FIXED64: _wide_integer_out,
    _F.TYPE_FLOAT: _number_out,
    _F.TYPE_INT32: str,
    _F.TYPE_INT64: _wide_integer_out,
    _F.TYPE_SFIXED32: str,
    _F.TYPE_SFIXED64: _wide_integer_out,
    _F.TYPE_SINT32: str,
    _F.TYPE_SINT64: _wide_integer_out,
    _F.TYPE_STRING: quoted,
    _F.TYPE_UINT32: str,
    _F.TYPE_UINT64: _wide_integer_out,
}


def reader(field: FieldDescriptor) -> Reader:
    """Returns what turns a JSON value into a value of the field, or raises `Refused`."""
    return _enum_reader(field.enum_type) if field.enum_type else _READERS[field.type]


def writer(field: FieldDescriptor) -> Writer:
    """Returns what turns a value of the field into its JSON text."""
    return _enum_writer(field.enum_type) if field.enum_type else _WRITERS[field.type]


_NUMBER_TEXT = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_NUMERIC = frozenset(_READERS) - {_F.TYPE_BOOL, _F.TYPE_BYTES, _F.TYPE_STRING}


def json_of_text(field: FieldDescriptor, value: str) -> Json:
    """Reads text of a path, query or map key as the JSON value it means; text that does not fit stays text."""
    if field.type == _F.TYPE_BOOL:
        return {"true": True, "false": False}.get(value, value)
    match = _NUMBER_TEXT.fullmatch(value) if field.type in _NUMERIC else None
    if match is None:
        return value
    return float(value) if match[2] or match[3] else int(value)
