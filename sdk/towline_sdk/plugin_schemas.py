"""The schemas in `plugin.toml` of a plugin whose entry point has types: read from the code, written into the file.

The code is the author's, so it is imported by a process of its own: `python -m towline_sdk.plugin_schemas FOLDER MODULE
FUNCTION` prints the schemas, or null for a function that `plugin` has not made an entry point.
"""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from towline_sdk.errors import InvalidBundleError
from towline_sdk.manifest import MANIFEST_NAME, parse_manifest
from towline_sdk.type_schemas import NoSchemaError, schema_of

TIMEOUT_SECONDS: Final = 60
SECTIONS: Final = {"config_schema": "config", "output_schema": "return"}
_PYTHON: Final = "python:"
_HEADER: Final = re.compile(r"\s*\[\[?\s*([\w-]+)")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def schemas_of(folder: Path) -> dict[str, Any]:
    """Returns the schemas that a plugin's types say, by section; none if its entry point has no types."""
    entry_point = parse_manifest((folder / MANIFEST_NAME).read_bytes()).entry_point
    if not entry_point.startswith(_PYTHON):
        return {}
    command = [sys.executable, "-P", "-m", "towline_sdk.plugin_schemas", str(folder), *entry_point.split(":")[1:]]
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        raise InvalidBundleError(f"{entry_point} has no schemas: {done.stderr.strip()[-2_000:]}")
    return cast("dict[str, Any]", json.loads(done.stdout.splitlines()[-1]) or {})


def write_schemas(folder: Path) -> bool:
    """Makes `plugin.toml` say what the types say; returns whether that changed it."""
    file = folder / MANIFEST_NAME
    schemas = schemas_of(folder)
    manifest = parse_manifest(file.read_bytes())
    if all(getattr(manifest, name) == schema for name, schema in schemas.items()):
        return False
    kept = "".join(_without(file.read_text(encoding="utf-8"), schemas)).rstrip()
    written = "\n".join(line for name, schema in schemas.items() for line in _table([name], schema))
    text = f"{kept}\n{written}\n"
    parse_manifest(text.encode())
    file.write_text(text, encoding="utf-8")
    return True


def _without(text: str, sections: Mapping[str, Any]) -> Iterator[str]:
    inside = False
    for line in text.splitlines(keepends=True):
        if header := _HEADER.match(line):
            inside = header[1] in sections
        if not inside:
            yield line


def _table(path: list[str], table: Mapping[str, Any]) -> Iterator[str]:
    below = {name: cast("dict[str, Any]", value) for name, value in table.items() if isinstance(value, dict) and value}
    own = [f"{_key(name)} = {_inline(value)}" for name, value in table.items() if name not in below]
    if own or not below:
        yield f"[{'.'.join(map(_key, path))}]" if path[1:] else f"\n[{_key(path[0])}]"
        yield from own
    for name, value in below.items():
        yield from _table([*path, name], value)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{_key(name)} = {_inline(item)}" for name, item in cast("dict[str, Any]", value).items())
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, cast('list[Any]', value)))}]"
    if value is None:
        raise InvalidBundleError("a schema holds null, which TOML cannot say")
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _main(folder: str, module: str, function: str) -> None:
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    hints: dict[str, Any] | None = getattr(
        getattr(importlib.import_module(module), function), "typed_entry_point", None
    )
    try:
        schemas = hints and {name: schema_of(hints[part]) for name, part in SECTIONS.items() if part in hints}
    except NoSchemaError as error:
        sys.exit(str(error))
    sys.stdout.write(f"\n{json.dumps(schemas)}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
