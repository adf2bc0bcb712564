"""`plugin.toml`: what a plugin says of itself, every field checked and named when it is wrong.

The SDK checks the same before it sends anything, in `towline_sdk.manifest`; a test holds the two against each other.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from towline_controlplane.errors import InvalidArgument, Violation
from towline_controlplane.json_values import to_text
from towline_controlplane.registry import Permissions
from towline_controlplane.services.bundles import MANIFEST, BundleContents
from towline_controlplane.services.checks import wrong_text
from towline_dag import limits as bounds
from towline_dag.choices import Limits, Network, SandboxLevel, SideEffects
from towline_dag.schemas import wrong_schema

MAX_DESCRIPTION_LENGTH: Final = 4_000
MAX_SCHEMA_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VERSION: Final = re.compile(r"(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){2}(-[0-9A-Za-z.-]{1,32})?", re.ASCII)
_PYTHON: Final = re.compile(r"python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_SECRET: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
MAX_SECRETS: Final = 32
FIELDS: Final = frozenset(
    {
        *("name", "version", "description", "entry_point", "side_effects", "min_sandbox", "config_schema"),
        *("output_schema", "limits", "permissions", "environment"),
    }
)
PERMISSIONS: Final = ("network", "secrets")
ENVIRONMENT: Final = ("lock", "wheels")
LIMITS: Final = {
    "timeout_ms": bounds.MAX_TIMEOUT_MS,
    "memory_limit_mb": bounds.MAX_MEMORY_MB,
    "cpu_seconds": bounds.MAX_CPU_SECONDS,
    "processes": bounds.MAX_PROCESSES,
    "open_files": bounds.MAX_OPEN_FILES,
    "file_mb": bounds.MAX_FILE_MB,
    "output_kb": bounds.MAX_OUTPUT_KB,
    "log_kb": bounds.MAX_LOG_KB,
    "artifact_mb": bounds.MAX_ARTIFACT_MB,
}
_NETWORKS: Final = {network.lower(): network for network in Network}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked manifest. Limits are 0 where it sets none; schemas are JSON text."""

    name: str
    version: str
    description: str
    entry_point: str
    side_effects: SideEffects
    timeout_ms: int
    memory_limit_mb: int
    config_schema: str
    output_schema: str
    permissions: Permissions
    min_sandbox: SandboxLevel
    limits: Limits


def manifest_of(contents: BundleContents) -> Manifest:
    """Returns the manifest of a bundle; raises InvalidArgument that names each wrong field."""
    try:
        document = tomllib.loads(contents.manifest.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArgument.of(MANIFEST, f"is not TOML in UTF-8: {str(error)[:200]}") from None
    wrong = [Violation(f"{MANIFEST}: {each.field}", each.message) for each in _wrong_fields(document, contents.files)]
    if wrong:
        raise InvalidArgument(wrong)
    limits = dict(document.get("limits", {}))
    permissions = document.get("permissions", {})
    return Manifest(
        name=document["name"],
        version=document["version"],
        description=document.get("description", ""),
        entry_point=document["entry_point"],
        side_effects=SideEffects(document.get("side_effects", SideEffects.IDEMPOTENT)),
        timeout_ms=limits.pop("timeout_ms", 0),
        memory_limit_mb=limits.pop("memory_limit_mb", 0),
        config_schema=to_text(document.get("config_schema", {})),
        output_schema=to_text(document.get("output_schema", {})),
        permissions=Permissions(
            _NETWORKS[permissions.get("network", "full")], tuple(sorted(set(permissions.get("secrets", ()))))
        ),
        min_sandbox=SandboxLevel[document.get("min_sandbox", "L0")],
        limits=Limits(**limits),
    )


def _wrong_fields(document: Mapping[str, Any], files: frozenset[str]) -> Iterator[Violation]:
    for name in sorted(document.keys() - FIELDS):
        yield Violation(name[:100], f"is not a field; known are {', '.join(sorted(FIELDS))}")
    yield from _wrong_form(document, "name", _is_name, "a letter, then letters, digits, '_', '-', '.'; at most 128")
    yield from _wrong_form(document, "version", _VERSION.fullmatch, "a semantic version such as 1.0.0")
    yield from _wrong_entry_point(document.get("entry_point"), files)
    yield from _wrong_description(document.get("description", ""))
    yield from _wrong_choice(document, "side_effects", tuple(SideEffects))
    yield from _wrong_choice(document, "min_sandbox", tuple(SandboxLevel.__members__))
    yield from _wrong_limits(document.get("limits", {}))
    yield from _wrong_permissions(document.get("permissions", {}))
    yield from _wrong_environment(document.get("environment", {"lock": None}), files)
    for name in ("config_schema", "output_schema"):
        yield from _wrong_schema(document.get(name, {}), name)


def _wrong_form(
    document: Mapping[str, Any], name: str, fits: Callable[[str], object], form: str
) -> Iterator[Violation]:
    value = document.get(name)
    if not isinstance(value, str) or not fits(value):
        yield Violation(name, "is required" if value is None else f"must be {form}")


def _is_name(value: str) -> bool:
    # The registry finds plugins by id or name: a name must not pass for an id.
    return bool(_NAME.fullmatch(value)) and not _UUID.fullmatch(value)


def _wrong_entry_point(value: object, files: frozenset[str]) -> Iterator[Violation]:
    if value is None:
        yield Violation("entry_point", "is required")
    elif not isinstance(value, str) or not (value in files or _PYTHON.fullmatch(value)):
        yield Violation("entry_point", "must be `python:module:function` or the name of a file in the bundle")


def _wrong_description(value: object) -> Iterator[Violation]:
    if isinstance(value, str):
        yield from wrong_text(value, "description", 0, MAX_DESCRIPTION_LENGTH)
    else:
        yield Violation("description", "must be a string")


def _wrong_choice(table: Mapping[str, Any], name: str, allowed: Collection[str], path: str = "") -> Iterator[Violation]:
    if name in table and table[name] not in tuple(allowed):  # a list is in no set
        yield Violation(path + name, f"must be one of {', '.join(allowed)}")


def _wrong_table(value: object, name: str, known: Collection[str]) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield Violation(name, "must be a table")
        return
    for key in cast("dict[str, object]", value):
        if key not in known:
            yield Violation(f"{name}.{key[:100]}", f"is not a field; known are {', '.join(known)}")


def _wrong_limits(value: object) -> Iterator[Violation]:
    yield from _wrong_table(value, "limits", LIMITS)
    for name, highest in LIMITS.items():
        limit = _member(value, name, 1)
        if type(limit) is not int or not 1 <= limit <= highest:
            yield Violation(f"limits.{name}", f"must be 1 to {highest}")


def _wrong_permissions(value: object) -> Iterator[Violation]:
    yield from _wrong_table(value, "permissions", PERMISSIONS)
    if _member(value, "network", "full") not in tuple(_NETWORKS):
        yield Violation("permissions.network", f"must be one of {', '.join(_NETWORKS)}")
    secrets = _member(value, "secrets", [])
    if not isinstance(secrets, list) or not all(map(_is_secret, cast("list[object]", secrets))):
        yield Violation("permissions.secrets", "must be a list of names: capital letters, digits, '_'")
    elif len(cast("list[object]", secrets)) > MAX_SECRETS:
        yield Violation("permissions.secrets", f"must not be more than {MAX_SECRETS}")


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and bool(_SECRET.fullmatch(name))


def _wrong_environment(value: object, files: frozenset[str]) -> Iterator[Violation]:
    yield from _wrong_table(value, "environment", ENVIRONMENT)
    lock, wheels = _member(value, "lock", ""), _member(value, "wheels", None)
    if isinstance(value, dict) and lock is not None and lock not in tuple(files):
        yield Violation("environment.lock", "must name a file in the bundle")
    folder = f"{wheels}".removesuffix("/")
    if wheels is not None and not any(name.startswith(f"{folder}/") and name.endswith(".whl") for name in files):
        yield Violation("environment.wheels", "must name a folder of the bundle that holds wheels")


def _member(value: object, name: str, default: object) -> object:
    return cast("dict[str, object]", value).get(name, default) if isinstance(value, dict) else default


def _wrong_schema(schema: object, name: str) -> Iterator[Violation]:
    if not isinstance(schema, dict):
        yield Violation(name, "must be a table")
        return
    wrong = wrong_schema(cast("dict[str, Any]", schema), name)
    if not wrong and len(to_text(cast("dict[str, Any]", schema)).encode()) > MAX_SCHEMA_BYTES:
        wrong = [Violation(name, f"is larger than {MAX_SCHEMA_BYTES} bytes")]
    yield from wrong
