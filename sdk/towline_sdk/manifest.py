"""What `plugin.toml` says. Every wrong field is named at once, in one `InvalidBundleError`.

The control plane judges again when a bundle arrives, by the same rules and upper bounds of its own.
"""

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
SANDBOX_LEVELS: Final = ("L0", "L1", "L2", "L3", "L4")
NETWORKS: Final = ("none", "full")
MOST_SECRETS: Final = 32

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
VERSION: Final = re.compile(r"(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){2}(-[0-9A-Za-z.-]{1,32})?", re.ASCII)
SECRET: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
PYTHON_ENTRY_POINT: Final = re.compile(r"python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a plugin needs beyond its own folder."""

    network: str = "full"
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """The packages of a plugin: a lock with hashes, and the folder of wheels that it brings along, if it does."""

    lock: str
    wheels: str | None = None


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
    cpu_seconds: int | None = None
    processes: int | None = None
    open_files: int | None = None
    file_mb: int | None = None
    output_kb: int | None = None
    log_kb: int | None = None
    artifact_mb: int | None = None
    min_sandbox: str = "L0"
    permissions: Permissions = Permissions()
    environment: Environment | None = None


def parse_manifest(data: bytes) -> Manifest:
    """Returns the manifest that `plugin.toml` describes."""
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidBundleError(f"{MANIFEST_NAME} is not TOML: {error}") from None
    wrong = tuple(_violations(document))
    if wrong:
        raise InvalidBundleError(f"{MANIFEST_NAME} is not valid", violations=wrong)
    permissions: dict[str, Any] = document.pop("permissions", {})
    environment: dict[str, Any] | None = document.pop("environment", None)
    return Manifest(
        **document.pop("limits", {}),
        **document,
        permissions=Permissions(permissions.get("network", "full"), tuple(permissions.get("secrets", ()))),
        environment=None if environment is None else _environment(**environment),
    )


def _environment(lock: str, wheels: str | None = None) -> Environment:
    return Environment(lock, wheels and wheels.removesuffix("/"))


def _violations(document: Mapping[str, Any]) -> Iterator[Violation]:
    yield from _table_violations(document, FIELDS, "")
    yield from (Violation(name, "is required") for name in REQUIRED if name not in document)
    for name, rules in TABLES.items():
        table: object = document.get(name)
        if isinstance(table, dict):
            yield from _table_violations(cast("dict[str, Any]", table), rules, f"{name}.")
    environment: object = document.get("environment")
    if isinstance(environment, dict) and "lock" not in environment:
        yield Violation("environment.lock", "is required")


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
    return _is_path(value)


def _is_path(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    path = PurePosixPath(value)
    return str(path) == value and not path.is_absolute() and ".." not in path.parts


def _is_folder(value: object) -> bool:
    return isinstance(value, str) and _is_path(value.removesuffix("/"))


def _are_secrets(value: object) -> bool:
    if not isinstance(value, list) or len(cast("list[object]", value)) > MOST_SECRETS:
        return False
    return all(isinstance(name, str) and SECRET.fullmatch(name) for name in cast("list[object]", value))


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
        "min_sandbox": Rule(lambda value: value in SANDBOX_LEVELS, f"must be one of {', '.join(SANDBOX_LEVELS)}"),
        "limits": Rule(_is_table, "must be a table"),
        "permissions": Rule(_is_table, "must be a table"),
        "environment": Rule(_is_table, "must be a table"),
        "config_schema": Rule(_is_table, "must be a table: a JSON Schema"),
        "output_schema": Rule(_is_table, "must be a table: a JSON Schema"),
    }
)
_POSITIVE: Final = Rule(_is_positive, "must be a whole number above 0")
LIMITS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "timeout_ms": _POSITIVE,
        "memory_limit_mb": _POSITIVE,
        "cpu_seconds": _POSITIVE,
        "processes": _POSITIVE,
        "open_files": _POSITIVE,
        "file_mb": _POSITIVE,
        "output_kb": _POSITIVE,
        "log_kb": _POSITIVE,
        "artifact_mb": _POSITIVE,
    }
)
PERMISSIONS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "network": Rule(lambda value: value in NETWORKS, f"must be one of {', '.join(NETWORKS)}"),
        "secrets": Rule(
            _are_secrets, f"must be a list of at most {MOST_SECRETS} names of capital letters, digits, '_'"
        ),
    }
)
ENVIRONMENT: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "lock": Rule(_is_path, "must name a file of the folder"),
        "wheels": Rule(_is_folder, "must name a folder of wheels in the folder"),
    }
)
TABLES: Final = MappingProxyType({"limits": LIMITS, "permissions": PERMISSIONS, "environment": ENVIRONMENT})
