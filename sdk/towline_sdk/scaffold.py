"""Makes the folder of a new plugin from a template, which passes its own conformance test."""

import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from towline_sdk.errors import InvalidArgumentError, Violation
from towline_sdk.manifest import NAME

LANGUAGES: Final = ("python", "bash", "node", "go")
_PLACEHOLDER: Final = "{{name}}"


def create(folder: Path, name: str, language: str) -> list[Path]:
    """Writes a template's files into a new folder and returns them; raises InvalidArgumentError."""
    if not NAME.fullmatch(name):
        rule = "must be a letter, then letters, digits, _, -, . (at most 128 characters)"
        raise InvalidArgumentError("the name is not valid", violations=(Violation("name", rule),))
    if folder.exists():
        raise InvalidArgumentError(f"{folder} is there already")
    template = importlib.resources.files("towline_sdk") / "templates" / language
    return [_write(source, folder / path, name) for path, source in _files(template, Path())]


def _files(folder: Traversable, path: Path) -> Iterator[tuple[Path, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(entry, path / entry.name)
        else:
            yield path / entry.name, entry


def _write(source: Traversable, target: Path, name: str) -> Path:
    text = source.read_text(encoding="utf-8").replace(_PLACEHOLDER, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    if text.startswith("#!"):  # a wheel does not keep modes
        target.chmod(0o755)
    return target
