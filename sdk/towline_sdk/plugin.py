"""What plugin code may need of Towline: types, secrets, and exceptions that say whether trying again can help.

Standard library only; nothing else of the SDK is imported, so that a plugin's interpreter stays small.
"""

import dataclasses
import functools
import inspect
import json
import os
import types
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

PluginT = TypeVar("PluginT", bound=Callable[..., Any])

SECRETS_VARIABLE = "TOWLINE_SECRETS_FD"


def secrets() -> dict[str, str]:
    """Returns the secrets that this attempt was given, by name.

    The first call reads their descriptor, closes it and takes its name out of the environment: processes that are
    started afterwards find nothing.
    """
    return dict(_given())


@cache
def _given() -> dict[str, str]:
    descriptor = os.environ.pop(SECRETS_VARIABLE, "")
    if not descriptor:
        return {}
    with open(int(descriptor), "rb") as file:
        return json.load(file)


def plugin(function: PluginT) -> PluginT:
    """Makes a function with types an entry point: its `config` arrives as the type that it names, its result as JSON.

    The type of `config` is a dataclass, a TypedDict or a pydantic model; that of the result may be one too. From both
    `towline plugin schema` writes the schemas into `plugin.toml`.
    """
    hints = get_type_hints(function, include_extras=True)

    @functools.wraps(function)
    def run(**given: Any) -> Any:
        if "config" in given and "config" in hints:
            given["config"] = from_json(hints["config"], given["config"])
        return to_json(function(**given))

    # The agent gives what the function asks for by name.
    run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    run.typed_entry_point = hints  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def from_json(kind: Any, value: Any) -> Any:
    """Returns a JSON value as the type that it was written for; what fits no type in particular stays as it is."""
    if get_origin(kind) is Annotated:
        return from_json(get_args(kind)[0], value)
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        hints, members = get_type_hints(kind, include_extras=True), cast("dict[str, Any]", value)
        return kind(**{name: from_json(hints[name], item) for name, item in members.items() if name in hints})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return _parts_from_json(get_origin(kind), get_args(kind), value)


def _parts_from_json(origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    is_object, is_list = isinstance(value, dict), isinstance(value, list)
    if origin in (Union, types.UnionType):
        fitting = [each for each in arguments if is_object and not _is_plain(each)]
        return from_json(fitting[0], value) if fitting else value
    if is_list and arguments:
        return [from_json(arguments[0], item) for item in value]
    if is_object and len(arguments) == 2:
        return {key: from_json(arguments[1], item) for key, item in value.items()}
    return value


def _is_plain(kind: Any) -> bool:
    return kind is type(None) or kind in (str, int, float, bool, Any)


def to_json(value: Any) -> Any:
    """Returns a result as JSON values."""
    is_object, is_list = isinstance(value, dict), isinstance(value, list | tuple)
    if is_object:
        return {key: to_json(item) for key, item in value.items()}
    if is_list:
        return [to_json(item) for item in value]
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value.value if isinstance(value, Enum) else value


class TransientError(Exception):
    """The attempt failed for a reason that may pass: the step is retried within its retry settings."""

    def __init__(self, message: str, *, code: str = "PLUGIN_ERROR", retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms


class PermanentError(Exception):
    """The attempt failed for a reason that stays: the step fails at once."""

    def __init__(self, message: str, *, code: str = "PLUGIN_ERROR") -> None:
        super().__init__(message)
        self.code = code
