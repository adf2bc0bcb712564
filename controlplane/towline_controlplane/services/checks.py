"""Checks that requests share: bounds of texts and labels, and rows that must be there.

A row that the caller may not see is reported exactly like one that does not exist (I23).
"""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from towline_controlplane.engine.limits import MAX_LABEL_KEY_CHARACTERS, MAX_LABEL_VALUE_CHARACTERS, MAX_LABELS
from towline_controlplane.errors import InvalidArgument, NotFound, Violation

_SHOWN_ID_LENGTH: Final = 100
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Row = TypeVar("Row")


def found(row: Row | None, kind: str, row_id: str) -> Row:
    """Returns the row; raises NotFound if there is none."""
    if row is None:
        raise NotFound(f"there is no {kind} {row_id[:_SHOWN_ID_LENGTH]}")
    return row


def wrong_text(value: str, field: str, minimum: int, maximum: int) -> list[Violation]:
    """Returns what is wrong with the length or the characters of a text."""
    if not minimum <= len(value) <= maximum or (minimum and not value.strip()):
        span = f"{minimum} to {maximum:,}" if minimum else f"at most {maximum:,}"
        return [Violation(field, f"must have {span} characters")]
    if _CONTROL.search(value):
        return [Violation(field, "holds control characters")]
    return []


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
