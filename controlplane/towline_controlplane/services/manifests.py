"""`plugin.toml`: what a plugin says of itself, every field checked and named when it is wrong."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from towline_controlplane.engine.limits import MAX_MEMORY_MB, MAX_TIMEOUT_MS
from towline_controlplane.errors import InvalidArgument, Violation
from towline_controlplane.json_values import to_text
from towline_controlplane.model import SideEffects
from towline_controlplane.services.bundles import MANIFEST, BundleContents
from towline_controlplane.services.checks import wrong_text
from towline_controlplane.services.config_schemas import wrong_schema

MAX_DESCRIPTION_LENGTH: Final = 4_000
MAX_SCHEMA_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VERSION: Final = re.compile(r"(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){2}(-[0-9A-Za-z.-]{1,32})?", re.ASCII)
_PYTHON: Final = re.compile(r"python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_FIELDS: Final = frozenset(
    {"name", "version", "description", "entry_point", "side_effects", "limits", "config_schema", "output_schema"}
)
_LIMITS: Final = {"timeout_ms": MAX_TIMEOUT_MS, "memory_limit_mb": MAX_MEMORY_MB}


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


def manifest_of(contents: BundleContents) -> Manifest:
    """Returns the manifest of a bundle; raises InvalidArgument that names each wrong field."""
    try:
        document = tomllib.loads(contents.manifest.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArgument.of(MANIFEST, f"is not TOML in UTF-8: {str(error)[:200]}") from None
    wrong = [Violation(f"{MANIFEST}: {each.field}", each.message) for each in _wrong_fields(document, contents.files)]
    if wrong:
        raise InvalidArgument(wrong)
    limits = document.get("limits", {})
    return Manifest(
        name=document["name"],
        version=document["version"],
        description=document.get("description", ""),
        entry_point=document["entry_point"],
        side_effects=SideEffects(document.get("side_effects", SideEffects.IDEMPOTENT)),
        timeout_ms=limits.get("timeout_ms", 0),
        memory_limit_mb=limits.get("memory_limit_mb", 0),
        config_schema=to_text(document.get("config_schema", {})),
        output_schema=to_text(document.get("output_schema", {})),
    )


def _wrong_fields(document: Mapping[str, Any], files: frozenset[str]) -> Iterator[Violation]:
    for name in sorted(document.keys() - _FIELDS):
        yield Violation(name[:100], f"is not a field; known are {', '.join(sorted(_FIELDS))}")
    yield from _wrong_form(document, "name", _is_name, "a letter, then letters, digits, '_', '-', '.'; at most 128")
    yield from _wrong_form(document, "version", _VERSION.fullmatch, "a semantic version such as 1.0.0")
    yield from _wrong_entry_point(document.get("entry_point"), files)
    yield from _wrong_description(document.get("description", ""))
    if document.get("side_effects", SideEffects.IDEMPOTENT) not in tuple(SideEffects):
        yield Violation("side_effects", f"must be one of {', '.join(SideEffects)}")
    yield from _wrong_limits(document.get("limits", {}))
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


def _wrong_limits(limits: object) -> Iterator[Violation]:
    if not isinstance(limits, dict):
        yield Violation("limits", "must be a table")
        return
    for name, value in cast("dict[str, object]", limits).items():
        highest = _LIMITS.get(name)
        if highest is None:
            yield Violation(f"limits.{name[:100]}", f"is not a limit; known are {', '.join(_LIMITS)}")
        elif type(value) is not int or not 1 <= value <= highest:
            yield Violation(f"limits.{name}", f"must be 1 to {highest}")


def _wrong_schema(schema: object, name: str) -> Iterator[Violation]:
    if not isinstance(schema, dict):
        yield Violation(name, "must be a table")
        return
    wrong = wrong_schema(cast("dict[str, Any]", schema), name)
    if not wrong and len(to_text(cast("dict[str, Any]", schema)).encode()) > MAX_SCHEMA_BYTES:
        wrong = [Violation(name, f"is larger than {MAX_SCHEMA_BYTES} bytes")]
    yield from wrong
