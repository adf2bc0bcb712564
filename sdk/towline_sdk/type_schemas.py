"""JSON Schemas of Python types: what a typed plugin takes and gives, as `plugin.toml` says it.

Knows the types that JSON has, Literal, Enum, dataclasses, TypedDicts and pydantic models. A dict beside a type, as in
`Annotated[str, {"minLength": 1}]`, is added to its schema. Refuses what has no finite schema.
"""

import dataclasses
import inspect
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

Schema = dict[str, Any]

_PLAIN: Final[Mapping[Any, Schema]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
    Any: {},
    object: {},
}


class NoSchemaError(Exception):
    """A type has no JSON Schema; the message says which."""


def schema_of(kind: Any, outer: tuple[Any, ...] = ()) -> Schema:
    """Returns the schema of a type; raises NoSchemaError. `outer` are the types that it is a part of."""
    if any(kind is each for each in outer):
        raise NoSchemaError(f"{kind.__name__} is a part of itself")
    if (plain := next((schema for each, schema in _PLAIN.items() if each is kind), None)) is not None:
        return dict(plain)
    if hasattr(kind, "model_json_schema"):
        return _inlined(kind.model_json_schema(), {}, ())
    if is_typeddict(kind):
        return _object(kind, kind.__required_keys__, {}, outer)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _of_dataclass(kind, outer)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [each.value for each in kind]}
    return _of_generic(kind, get_origin(kind), get_args(kind), outer)


def _of_generic(kind: Any, origin: Any, arguments: tuple[Any, ...], outer: tuple[Any, ...]) -> Schema:
    if origin is Annotated:
        more = [cast("Schema", each) for each in arguments[1:] if isinstance(each, dict)]
        return schema_of(arguments[0], outer) | {key: value for each in more for key, value in each.items()}
    if origin in (Required, NotRequired):
        return schema_of(arguments[0], outer)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each, outer) for each in arguments]}
    if isinstance(origin, type) and issubclass(origin, Mapping) and arguments[:1] == (str,):
        return {"type": "object", "additionalProperties": schema_of(arguments[1], outer)}
    if isinstance(origin, type) and issubclass(origin, Sequence) and len(arguments) == 1:
        return {"type": "array", "items": schema_of(arguments[0], outer)}
    raise NoSchemaError(f"{kind} has no JSON Schema: use the types of JSON, dataclasses, TypedDicts, Literal or Enum")


def _of_dataclass(kind: Any, outer: tuple[Any, ...]) -> Schema:
    fields = [each for each in dataclasses.fields(kind) if each.init]
    required = [each.name for each in fields if _has_no_default(each)]
    defaults = {each.name: each.default for each in fields if isinstance(each.default, str | int | float)}
    return _object(kind, required, defaults, outer)


def _has_no_default(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _object(kind: Any, required: Any, defaults: Mapping[str, Any], outer: tuple[Any, ...]) -> Schema:
    hints = get_type_hints(kind, include_extras=True)
    properties = {name: schema_of(hint, (*outer, kind)) for name, hint in hints.items()}
    for name, default in defaults.items():
        properties[name]["default"] = default
    schema: Schema = {"type": "object"}
    # A dataclass without a docstring is given its signature.
    if (said := inspect.cleandoc(kind.__doc__ or "")) and not said.startswith(f"{kind.__name__}("):
        schema["description"] = said
    schema["required"] = [name for name in hints if name in required]
    return {**schema, "additionalProperties": False, "properties": properties}


def _inlined(schema: Any, definitions: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    """Returns a schema of pydantic without references, which the control plane does not follow."""
    if isinstance(schema, list):
        return [_inlined(each, definitions, inside) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    given = cast("dict[str, Any]", schema)
    known = given.get("$defs", definitions)
    name = str(given.get("$ref", "")).rpartition("/")[2]
    if name in inside:
        raise NoSchemaError(f"{name} is a part of itself")
    if name:
        return _inlined(known[name], known, (*inside, name))
    kept = ((key, value) for key, value in given.items() if key != "$defs" and value is not None)
    return {key: _inlined(value, known, inside) for key, value in kept}
