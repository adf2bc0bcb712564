"""Workflow files as they are written, JSON or YAML: read with their lines, so that every refusal points at one."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from towline_cli import json_source, yaml_source
from towline_cli.places import NotReadableError, Places, nearest
from towline_sdk.documents import Json, WorkflowDocument, parse_workflow
from towline_sdk.errors import InvalidArgumentError, InvalidDocumentError, Violation

STDIN: Final = "-"
YAML_SUFFIXES: Final = frozenset({".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class WorkflowFile:
    """What a file says, and where."""

    name: str
    document: Json
    places: Places

    def workflow(self) -> WorkflowDocument:
        """Returns the workflow; raises InvalidDocumentError that points at each wrong line."""
        with self.pointing():
            return parse_workflow(self.document)

    @contextmanager
    def pointing(self) -> Generator[None]:
        """Makes refusals of what the file says, ours and the server's, point at its lines."""
        try:
            yield
        except InvalidArgumentError as error:
            if not error.violations:
                raise
            raise self.refusal(error.violations, error.reason) from None

    def refusal(self, violations: tuple[Violation, ...], reason: str = "INVALID_DAG") -> InvalidDocumentError:
        """Returns the error that shows violations where they are."""
        ordered = sorted(violations, key=lambda each: (nearest(self.places, self._own(each.field)).line, each.field))
        shown = tuple(Violation(self._pointer(each), each.message) for each in ordered)
        return InvalidDocumentError(f"{self.name} is not a valid workflow", reason=reason, violations=shown)

    def _own(self, path: str) -> str:
        """Returns a path of the API as the file has it: a bare DAG is not below `dag`."""
        bare = isinstance(self.document, dict) and "dag" not in self.document
        return path.removeprefix("dag").removeprefix(".") if bare else path

    def _pointer(self, violation: Violation) -> str:
        where = f"{self.name}:{nearest(self.places, self._own(violation.field))}"
        return f"{where}: {violation.field}" if violation.field else where


def read(file: Path) -> WorkflowFile:
    """Returns a file, or standard input for `-`; raises InvalidDocumentError that points at what cannot be read."""
    name = "stdin" if str(file) == STDIN else str(file)
    try:
        text = sys.stdin.read() if str(file) == STDIN else file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDocumentError(f"{file} is not UTF-8: {error}") from None
    except OSError as error:
        raise InvalidDocumentError(f"cannot read {file}: {error.strerror}") from None
    read_text = yaml_source.read if _is_yaml(file, text) else json_source.read
    try:
        document, places = read_text(text)
    except NotReadableError as error:
        raise InvalidDocumentError(f"{name}:{error.place}: {error.message}") from None
    return WorkflowFile(name, document, places)


def _is_yaml(file: Path, text: str) -> bool:
    if file.suffix in YAML_SUFFIXES:
        return True
    return file.suffix != ".json" and not text.lstrip().startswith(("{", "["))
