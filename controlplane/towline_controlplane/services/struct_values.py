"""Free JSON between the wire (`google.protobuf.Struct` and `Value`) and plain values, whose rules are `json_values`.

A double that is a whole number becomes an int, so that 1 is kept as `1`. Nothing is checked here.
"""

import json
from collections.abc import Mapping
from typing import Final, cast

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from towline_dag.json_bounds import LARGEST_INTEGER

_PLAIN_KINDS: Final = frozenset({"string_value", "bool_value"})


def plain(value: Value) -> object:
    """Returns the plain value; an unset one is None."""
    kind = value.WhichOneof("kind")
    if kind in _PLAIN_KINDS:
        return getattr(value, kind)
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "struct_value":
        return plain_object(value.struct_value)
    if kind == "list_value":
        return [plain(item) for item in value.list_value.values]
    return None


def plain_object(struct: Struct) -> dict[str, object]:
    """Returns the plain object, its members sorted: the wire does not keep their order."""
    return {key: plain(struct.fields[key]) for key in sorted(struct.fields)}


def wire(value: object) -> Value:
    """Returns a plain value as it goes over the wire."""
    if value is None:
        return Value(null_value=NULL_VALUE)
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, int | float):
        return Value(number_value=value)
    if isinstance(value, str):
        return Value(string_value=value)
    if isinstance(value, list):
        return Value(list_value=ListValue(values=[wire(item) for item in cast("list[object]", value)]))
    return Value(struct_value=wire_object(cast("Mapping[str, object]", value)))


def wire_object(value: Mapping[str, object]) -> Struct:
    """Returns a plain object as it goes over the wire."""
    return Struct(fields={key: wire(item) for key, item in value.items()})


def wire_text(text: str) -> Value:
    """Returns a stored JSON text as it goes over the wire."""
    return wire(json.loads(text))


def wire_texts(texts: Mapping[str, str]) -> Value:
    """Returns an object whose members are stored as JSON texts as it goes over the wire."""
    return Value(struct_value=Struct(fields={key: wire_text(text) for key, text in texts.items()}))


def _number(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) <= LARGEST_INTEGER else number
