"""Free JSON (`google.protobuf.Value`, `Struct`, `ListValue`): what users put into inputs and configs.

Refuses what would not survive the wire: numbers that are not finite, integers beyond ±(2^53−1), NUL, unpaired
surrogates, and nesting beyond 32 levels (protobuf parsers stop at 100, and one level of JSON costs three of theirs).
"""

import math
from typing import Any, Final, cast

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from towline_gateway.codec.json_text import Json, RepeatedKeys, kind_of
from towline_gateway.codec.scalars import MAX_EXACT_INTEGER, text
from towline_gateway.codec.violations import Refused, Violations, member

MAX_DEPTH: Final = 32


def fill_value(target: Value, value: Json, path: str, violations: Violations, depth: int = 1) -> None:
    """Sets `target` to the JSON value, or records why not."""
    if isinstance(value, str):
        try:
            target.string_value = text(value)
        except Refused as refusal:
            violations.add(path, str(refusal))
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        fill_struct(target.struct_value, value, path, violations, depth)
    elif isinstance(value, list):
        target.list_value.SetInParent()
        fill_list(target.list_value, value, path, violations, depth)
    else:
        _fill_atom(target, value, path, violations)


def _fill_atom(target: Value, value: bool | float | None, path: str, violations: Violations) -> None:
    if value is None:
        target.null_value = 0  # pyright: ignore[reportAttributeAccessIssue] - the stub forbids the enum's number
    elif type(value) is bool:
        target.bool_value = value
    elif type(value) is int and abs(value) > MAX_EXACT_INTEGER:
        violations.add(path, "must be an integer within ±(2^53−1)")
    elif not math.isfinite(value):
        violations.add(path, "must be a finite number")
    else:
        target.number_value = value


def fill_struct(target: Struct, value: Json, path: str, violations: Violations, depth: int = 1) -> None:
    """Sets `target` to the JSON object, or records why not."""
    if not isinstance(value, dict):
        violations.add(path, f"must be an object, not {kind_of(value)}")
        return
    if depth > MAX_DEPTH:
        violations.add(path, f"must not be nested deeper than {MAX_DEPTH} levels")
        return
    if isinstance(value, RepeatedKeys):
        for name in value.repeated:
            violations.add(member(path, name), "is given more than once")
    fields = target.fields
    for name, item in value.items():
        below = member(path, name)
        try:
            entry = fields[text(name)]
        except Refused as refusal:
            violations.add(path, f"a name in it {refusal}")
        else:
            fill_value(entry, item, below, violations, depth + 1)


def fill_list(target: ListValue, value: Json, path: str, violations: Violations, depth: int = 1) -> None:
    """Sets `target` to the JSON array, or records why not."""
    if not isinstance(value, list):
        violations.add(path, f"must be an array, not {kind_of(value)}")
        return
    if depth > MAX_DEPTH:
        violations.add(path, f"must not be nested deeper than {MAX_DEPTH} levels")
        return
    values = target.values
    for index, item in enumerate(value):
        fill_value(values.add(), item, f"{path}[{index}]", violations, depth + 1)


def value_json(value: Value) -> Json:
    """JSON of a value; one that was never set reads as null."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number_json(value.number_value)
    if kind == "struct_value":
        return struct_json(value.struct_value)
    if kind == "list_value":
        return list_json(value.list_value)
    return value.bool_value if kind == "bool_value" else None


def _number_json(value: float) -> Json:
    return int(value) if value.is_integer() and abs(value) <= MAX_EXACT_INTEGER else value


def struct_json(value: Struct) -> Json:
    """JSON of a struct, names in sorted order: the wire keeps none, and equal objects should read equal."""
    fields = cast("dict[str, Any]", value.fields)
    return {name: value_json(fields[name]) for name in sorted(fields)}


def list_json(value: ListValue) -> Json:
    """JSON of a list."""
    return [value_json(item) for item in value.values]
