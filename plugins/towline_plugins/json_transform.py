"""JSON_TRANSFORM: computes a value from `inputs` and `input` with an expression in CEL.

Expressions are data: they reach no file, socket or clock, and the language has no unbounded loop.
"""

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from cel_expr_python import cel
from cel_expr_python.ext import ext_math, ext_strings

from towline_sdk.plugin import PermanentError

_ENVIRONMENT = cel.NewEnv(
    variables={"inputs": cel.Type.DYN, "input": cel.Type.DYN},
    extensions=[ext_math.ExtMath(), ext_strings.ExtStrings()],
)
_LARGEST_EXACT_INTEGER = 2**53 - 1


def run(config: dict[str, Any], inputs: dict[str, Any], input: object) -> dict[str, object]:  # noqa: A002 - the protocol
    """Returns what the expression yields, as plain JSON."""
    return {"value": _as_json(evaluate(config["expression"], {"inputs": inputs, "input": input}))}


def evaluate(source: str, variables: Mapping[str, Any]) -> object:
    """Returns the plain value of an expression.

    Raises:
        PermanentError: It does not compile or has no value for these variables; says where and why.
    """
    try:
        expression = _ENVIRONMENT.compile(source)
    except RuntimeError as error:
        raise PermanentError(str(error), code="EXPRESSION_INVALID") from error
    try:
        value = expression.eval(data=variables)
    except RuntimeError as error:
        raise PermanentError(str(error), code="EXPRESSION_FAILED") from error
    if value.type() == cel.Type.ERROR:
        raise PermanentError(str(value.plain_value()), code="EXPRESSION_FAILED")
    return value.plain_value()


def _as_json(value: object) -> object:
    match value:
        case None | bool() | str():
            return value
        case int() if abs(value) <= _LARGEST_EXACT_INTEGER:
            return value
        case float() if math.isfinite(value):
            return value
        case list():
            return [_as_json(item) for item in cast("list[object]", value)]
        case dict():
            return {key: _as_json(item) for key, item in _sorted(cast("dict[object, object]", value))}
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return f"{value.total_seconds():g}s"
        case _:
            raise PermanentError(f"{value} ({type(value).__name__}) has no exact form in JSON", code="INVALID_OUTPUT")


def _sorted(items: dict[object, object]) -> list[tuple[str, object]]:
    """The language leaves the order of a map open; outputs of equal runs shall be equal."""
    return sorted(((_as_key(key), item) for key, item in items.items()), key=lambda pair: pair[0])


def _as_key(key: object) -> str:
    return key if isinstance(key, str) else json.dumps(key)
