"""Bounds of the texts that people write: names, descriptions, labels."""

import re
from typing import Final

from towline_dag.violation import Violation

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def wrong_text(value: str, field: str, minimum: int, maximum: int) -> list[Violation]:
    """Returns what is wrong with the length or the characters of a text."""
    if not minimum <= len(value) <= maximum or (minimum and not value.strip()):
        span = f"{minimum} to {maximum:,}" if minimum else f"at most {maximum:,}"
        return [Violation(field, f"must have {span} characters")]
    if _CONTROL.search(value):
        return [Violation(field, "holds control characters")]
    return []
