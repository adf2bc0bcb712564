"""JSON Schemas of plugins: whether a pushed schema is one, and whether a node's config fits it.

Schemas come from strangers, so only keywords whose check ends in time linear in schema and value are followed: no
regular expressions, no references, no uniqueness. The plugin itself sees the whole config and may refuse more. A
value that holds a template is judged when it is rendered, not here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import create  # pyright: ignore[reportUnknownVariableType]

from towline_controlplane.errors import Violation
from towline_controlplane.json_values import member, violations

_TEMPLATE: Final = "${{"
_MAX_MESSAGE: Final = 300
_FOLLOWED: Final = frozenset(
    {
        "allOf", "anyOf", "const", "contains", "dependentRequired", "dependentSchemas", "enum", "exclusiveMaximum",
        "exclusiveMinimum", "if", "items", "maxItems", "maxLength", "maximum", "maxProperties", "minItems",
        "minLength", "minimum", "minProperties", "multipleOf", "not", "oneOf", "prefixItems", "properties",
        "propertyNames", "required", "type",
    }
)  # fmt: skip
# What these say holds whatever a template will be rendered to.
_ABOUT_MEMBERS: Final = frozenset({"required", "additionalProperties", "dependentRequired", "minProperties"})


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
            yield Violation(member(place, name), "is not a field of this plugin's config")
    else:
        yield Violation(place, error.message[:_MAX_MESSAGE])


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


_Validator: Final[Any] = create(
    meta_schema=Draft202012Validator.META_SCHEMA,
    validators={
        **{name: check for name, check in Draft202012Validator.VALIDATORS.items() if name in _FOLLOWED},
        "additionalProperties": _additional_properties,
    },
    type_checker=Draft202012Validator.TYPE_CHECKER,
)
