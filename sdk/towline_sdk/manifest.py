"""What `plugin.toml` says. Every wrong field is named at once, in one `InvalidBundleError`."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final, cast

from towline_sdk.errors import InvalidBundleError, Violation

MANIFEST_NAME: Final = "plugin.toml"
SIDE_EFFECTS: Final = ("NONE", "IDEMPOTENT", "UNSAFE")

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
VERSION: Final = re.compile(r"(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){2}(-[0-9A-Za-z.-]{1,32})?", re.ASCII)
PYTHON_ENTRY_POINT: Final = re.compile(r"python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid `plugin.toml`; a limit of `None` means the server's default."""

    name: str
    version: str
    entry_point: str
    description: str = ""
    side_effects: str = "IDEMPOTENT"
    timeout_ms: int | None = None
    memory_limit_mb: int | None = None
    config_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    output_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])


def parse_manifest(data: bytes) -> Manifest:
    """Returns the manifest that `plugin.toml` describes."""
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidBundleError(f"{MANIFEST_NAME} is not TOML: {error}") from None
    wrong = tuple(_violations(document))
    if wrong:
        raise InvalidBundleError(f"{MANIFEST_NAME} is not valid", violations=wrong)
    limits = document.pop("limits", {})
    return Manifest(**document, **limits)


def _violations(document: Mapping[str, Any]) -> Iterator[Violation]:
    yield from _table_violations(document, FIELDS, "")
    yield from (Violation(name, "is required") for name in REQUIRED if name not in document)
    limits: object = document.get("limits")
    if isinstance(limits, dict):
        yield from _table_violations(cast("dict[str, Any]", limits), LIMITS, "limits.")


def _table_violations(table: Mapping[str, Any], rules: Mapping[str, "Rule"], prefix: str) -> Iterator[Violation]:
    for name, value in table.items():
        if name not in rules:
            yield Violation(prefix + name, f"is not a field; known are {', '.join(rules)}")
        elif not rules[name].holds(value):
            yield Violation(prefix + name, rules[name].message)


@dataclass(frozen=True, slots=True)
class Rule:
    """What the value of a field must be."""

    holds: Callable[[object], bool]
    message: str


def _matches(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_entry_point(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    if value.startswith("python:"):
        return PYTHON_ENTRY_POINT.fullmatch(value) is not None
    path = PurePosixPath(value)
    return str(path) == value and not path.is_absolute() and ".." not in path.parts


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


REQUIRED: Final = ("name", "version", "entry_point")
FIELDS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "name": Rule(
            _matches(NAME),
            "must be a letter, then letters, digits, _, -, . (at most 128 characters)",
        ),
        "version": Rule(_matches(VERSION), "must be a semantic version such as 1.2.3"),
        "description": Rule(lambda value: isinstance(value, str), "must be a string"),
        "entry_point": Rule(_is_entry_point, "must be python:module:function or a program of the folder"),
        "side_effects": Rule(lambda value: value in SIDE_EFFECTS, f"must be one of {', '.join(SIDE_EFFECTS)}"),
        "limits": Rule(_is_table, "must be a table"),
        "config_schema": Rule(_is_table, "must be a table: a JSON Schema"),
        "output_schema": Rule(_is_table, "must be a table: a JSON Schema"),
    }
)
LIMITS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "timeout_ms": Rule(_is_positive, "must be a whole number above 0"),
        "memory_limit_mb": Rule(_is_positive, "must be a whole number above 0"),
    }
)
