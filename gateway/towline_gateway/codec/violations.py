"""What is wrong with a document, field by field; refuses to gather more than a person reads."""

from dataclasses import dataclass, field
from typing import Final

MAX_VIOLATIONS: Final = 20
_MAX_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Violation:
    """One place of a document and what is wrong there; `field` is written as in JSON: `dag.nodes[0].id`."""

    field: str
    message: str


class InvalidFieldsError(ValueError):
    """A document does not fit its message; carries all violations found, at most `MAX_VIOLATIONS`."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("; ".join(f"{each.field}: {each.message}" for each in violations))
        self.violations = violations


class Refused(ValueError):
    """A single value cannot stand where it is; the text completes the sentence "the field …"."""


@dataclass(slots=True)
class Violations:
    """Gathers violations and stops the reading of a document that has too many."""

    found: list[Violation] = field(default_factory=list[Violation])

    def add(self, path: str, message: str) -> None:
        """Records one violation; raises `InvalidFieldsError` once there are enough."""
        self.found.append(Violation(path, message))
        if len(self.found) >= MAX_VIOLATIONS:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raises `InvalidFieldsError` when anything was recorded."""
        if self.found:
            raise InvalidFieldsError(tuple(self.found))


def member(path: str, name: str) -> str:
    """Path of a member of an object; a name that is not a plain word is quoted in brackets, a long one is cut."""
    shown = name[:_MAX_NAME]
    if shown.isidentifier():
        return f"{path}.{shown}" if path else shown
    return f'{path}["{shown.encode(errors="replace").decode()}"]'
