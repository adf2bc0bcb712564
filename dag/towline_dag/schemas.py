"""JSON Schemas: whether a plugin's or a workflow's is one, and whether a node's config or a run's input fits it.

Schemas come from strangers, so only keywords whose check ends in time linear in schema and value are followed: patterns
as RE2, no references, no uniqueness. The plugin itself sees the whole config and may refuse more. A value that holds a
template is judged when it is rendered, not here. The schema of a run's input may use nothing that is not followed.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, cast

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import create  # pyright: ignore[reportUnknownVariableType]

from towline_dag.expressions import ExpressionError, matches
from towline_dag.json_bounds import member, violations
from towline_dag.violation import Violation

_TEMPLATE: Final = "${{"
_MAX_MESSAGE: Final = 300
_MAX_VIOLATIONS: Final = 20
_FOLLOWED: Final = frozenset(
    {
        "allOf", "anyOf", "const", "contains", "dependentRequired", "dependentSchemas", "enum", "exclusiveMaximum",
        "exclusiveMinimum", "if", "items", "maxItems", "maxLength", "maximum", "maxProperties", "minItems",
        "minLength", "minimum", "minProperties", "multipleOf", "not", "oneOf", "prefixItems", "properties",
        "propertyNames", "required", "type",
    }
)  # fmt: skip
_ANNOTATIONS: Final = frozenset(
    {"$comment", "$id", "$schema", "default", "deprecated", "description", "examples", "format", "readOnly", "title",
     "writeOnly"}
)  # fmt: skip
# Where the schemas are that a keyword holds: itself, or the members of its object, or the items of its list.
_HOLDS_SCHEMA: Final = frozenset(
    {"additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
)
_HOLDS_SCHEMAS: Final = frozenset({"allOf", "anyOf", "dependentSchemas", "oneOf", "prefixItems", "properties"})
# What these say holds whatever a template will be rendered to.
_ABOUT_MEMBERS: Final = frozenset({"required", "additionalProperties", "dependentRequired", "minProperties"})

# Whose own messages show values as Python writes them.
_SAID_IN_JSON: Final = {
    "anyOf": "fits none of the schemas of anyOf",
    "const": "must be {}",
    "enum": "must be one of {}",
    "type": "must be of type {}",
}


def wrong_schema(schema: Mapping[str, Any], path: str) -> list[Violation]:
    """Returns what keeps an object from being a JSON Schema."""
    wrong = list(violations(dict(schema), path))
    if wrong:
        return wrong
    try:
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(()))
    except SchemaError as error:
        return [Violation(_place(path, error.absolute_path), error.message[:_MAX_MESSAGE])]
    return []


def wrong_input_schema(schema: Mapping[str, Any], path: str) -> list[Violation]:
    """Returns what keeps an object from being a schema that a run's input can be checked with, to the last keyword."""
    return wrong_schema(schema, path) or list(_unfollowed(schema, path))


def wrong_input(schema: Mapping[str, Any], value: object, path: str) -> list[Violation]:
    """Returns where a run's input does not fit the schema of its workflow."""
    found = (each for error in _Validator(schema).iter_errors(value) for each in _violations_of(error, path))
    return list(dict.fromkeys(found))[:_MAX_VIOLATIONS]


class Checker:
    """A schema that many values are held against."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.accepts_all = not schema.keys() - _ANNOTATIONS
        """Every value fits: there is nothing to check."""
        self._validator = _Validator(schema)

    def wrong(self, value: object, path: str) -> list[Violation]:
        """Returns where a value does not fit."""
        if self.accepts_all:
            return []
        found = (each for error in self._validator.iter_errors(value) for each in _violations_of(error, path))
        return list(dict.fromkeys(islice(found, _MAX_VIOLATIONS)))


def wrong_config(schema: Mapping[str, Any], config: Mapping[str, Any], path: str) -> list[Violation]:
    """Returns where a config does not fit its plugin's schema."""
    found: dict[tuple[str, str], Violation] = {}
    for error in _Validator(schema).iter_errors(config):
        if error.validator in _ABOUT_MEMBERS or not _has_template(error.instance):
            found.update(((each.field, each.message), each) for each in _violations_of(error, path))
    return list(found.values())


def _violations_of(error: ValidationError, path: str) -> Iterator[Violation]:
    place = _place(path, error.absolute_path)
    if error.validator == "required":
        for name in cast("list[str]", error.validator_value):
            if name not in cast("Mapping[str, Any]", error.instance):
                yield Violation(member(place, name), "is required")
    elif error.validator == "additionalProperties":
        for name in _unknown_members(error.schema, cast("Mapping[str, Any]", error.instance)):
            yield Violation(member(place, name), "is not a field that the schema knows")
    else:
        message = _SAID_IN_JSON.get(cast("str", error.validator), "")
        value = json.dumps(error.validator_value, ensure_ascii=False)
        yield Violation(place, (message.format(value) or error.message)[:_MAX_MESSAGE])


def _unfollowed(schema: object, path: str) -> Iterator[Violation]:
    if not isinstance(schema, dict):
        return
    for keyword, value in cast("dict[str, Any]", schema).items():
        place = member(path, keyword)
        if keyword == "pattern":
            yield from _wrong_pattern(value, place)
        elif keyword in _HOLDS_SCHEMA:
            yield from _unfollowed(value, place)
        elif keyword in _HOLDS_SCHEMAS:
            below: Any = cast("dict[str, Any]", value).items() if isinstance(value, dict) else enumerate(value)
            for key, each in below:
                yield from _unfollowed(each, f"{place}[{key}]" if isinstance(key, int) else member(place, key))
        elif keyword not in _FOLLOWED and keyword not in _ANNOTATIONS:
            yield Violation(place, "is a keyword that inputs are not checked by")


def _wrong_pattern(pattern: str, place: str) -> Iterator[Violation]:
    try:
        matches("", pattern)
    except ExpressionError as error:
        yield Violation(place, error.message)


def _place(path: str, steps: Iterator[str | int] | Any) -> str:
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else member(path, step)
    return path


def _has_template(value: Any) -> bool:
    if isinstance(value, str):
        return _TEMPLATE in value
    if isinstance(value, dict):
        return any(_has_template(item) for item in cast("dict[str, Any]", value).values())
    return isinstance(value, list) and any(_has_template(item) for item in cast("list[Any]", value))


def _unknown_members(schema: Any, instance: Mapping[str, Any]) -> list[str]:
    return [name for name in instance if name not in schema.get("properties", {})]


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """The keyword without its regular expressions: where `patternProperties` is given it says nothing."""
    if not isinstance(instance, dict) or "patternProperties" in schema:
        return
    for name in _unknown_members(schema, cast("dict[str, Any]", instance)):
        if allowed is False:
            yield ValidationError("has unknown members")
            return
        if isinstance(allowed, dict):
            yield from validator.descend(instance[name], allowed, path=name)


def _pattern(_validator: Any, pattern: str, instance: object, _schema: object) -> Iterator[ValidationError]:
    if not isinstance(instance, str):
        return
    try:
        fits = matches(instance, pattern)
    except ExpressionError:  # not RE2: only a plugin's schema may hold one, and the plugin checks it itself
        return
    if not fits:
        yield ValidationError(f"does not match {pattern!r}")


_Validator: Final[Any] = create(
    meta_schema=Draft202012Validator.META_SCHEMA,
    validators={
        **{name: check for name, check in Draft202012Validator.VALIDATORS.items() if name in _FOLLOWED},
        "additionalProperties": _additional_properties,
        "pattern": _pattern,
    },
    type_checker=Draft202012Validator.TYPE_CHECKER,
)
