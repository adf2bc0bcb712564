"""What can be wrong with a document: one place each, and the refusal that carries them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field: its path as in JSON (`dag.nodes[0].id`) and what is wrong with it."""

    field: str
    message: str


class InvalidDocument(Exception):
    """A document breaks the rules; names the places."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{each.field}: {each.message}" for each in violations))
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, message: str) -> "InvalidDocument":
        """Returns the refusal of one place."""
        return cls([Violation(field, message)])
