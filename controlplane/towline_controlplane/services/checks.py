"""Checks that requests share: bounds of texts and labels, and rows that must be there.

A row that the caller may not see is reported exactly like one that does not exist (I23).
"""

from collections.abc import Mapping
from typing import Final, TypeVar

from towline_controlplane.errors import InvalidArgument, NotFound, Violation
from towline_dag.limits import MAX_LABEL_KEY_CHARACTERS, MAX_LABEL_VALUE_CHARACTERS, MAX_LABELS
from towline_dag.texts import wrong_text

_SHOWN_ID_LENGTH: Final = 100

Row = TypeVar("Row")


def found(row: Row | None, kind: str, row_id: str) -> Row:
    """Returns the row; raises NotFound if there is none."""
    if row is None:
        raise NotFound(f"there is no {kind} {row_id[:_SHOWN_ID_LENGTH]}")
    return row


def wrong_labels(labels: Mapping[str, str], field: str) -> list[Violation]:
    """Returns what is wrong with the number, the keys and the values of labels."""
    if len(labels) > MAX_LABELS:
        return [Violation(field, f"must not be more than {MAX_LABELS}")]
    return [
        violation
        for key, value in sorted(labels.items())
        for violation in (
            *wrong_text(key, f"{field}.{key[:_SHOWN_ID_LENGTH]}", 1, MAX_LABEL_KEY_CHARACTERS),
            *wrong_text(value, f"{field}.{key[:_SHOWN_ID_LENGTH]}", 0, MAX_LABEL_VALUE_CHARACTERS),
        )
    ]


def refuse(*wrong: list[Violation]) -> None:
    """Raises InvalidArgument if anything is wrong."""
    violations = [violation for each in wrong for violation in each]
    if violations:
        raise InvalidArgument(violations)
