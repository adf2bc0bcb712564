"""What is there of the log of an attempt, against what its agent said of it. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from towline_controlplane.model import Attempt, AttemptState
from towline_controlplane.store.log_archives import ArchivedLog
from towline_controlplane.store.logs import LogSize

OPEN: Final = frozenset({AttemptState.OFFERED, AttemptState.RUNNING})


class LogCondition(StrEnum):
    """In short."""

    GROWING = "GROWING"
    ARRIVING = "ARRIVING"
    COMPLETE = "COMPLETE"
    INCOMPLETE = "INCOMPLETE"
    MISMATCHED = "MISMATCHED"


@dataclass(frozen=True, slots=True)
class LogStatus:
    """What is there of a log; `size` is None until its agent has said, `missing` goes from one offset to another."""

    condition: LogCondition
    size: int | None
    stored_bytes: int
    missing: tuple[int, int | None] | None
    verified: bool = False
    archived: bool = False


def log_status(
    attempt: Attempt, stored: LogSize | None, archived: ArchivedLog | None, given_up_before: int
) -> LogStatus:
    """Returns the status of a log; nothing more is expected of an attempt that ended before a time (µs)."""
    size = _size(attempt, stored)
    there = 0 if stored is None else stored.size
    whole = archived is not None and archived.size == there == size
    checked = whole and archived is not None and bool(attempt.usage.log_digest)
    verified = checked and archived is not None and archived.content_digest == attempt.usage.log_digest
    condition = _condition(attempt, size, there, given_up_before)
    is_over = stored is not None and stored.final and size != there
    if size is not None and (there > size or is_over or (checked and not verified)):
        condition = LogCondition.MISMATCHED
    is_open = condition is LogCondition.GROWING
    missing = None if is_open or (size is not None and there >= size) else (there, size)
    return LogStatus(
        condition, size, there, missing, verified, archived=archived is not None and archived.size == there
    )


def _size(attempt: Attempt, stored: LogSize | None) -> int | None:
    if attempt.report_digest is not None:
        return attempt.usage.log_bytes
    if attempt.start_time is None and attempt.state not in OPEN:  # it never ran
        return 0
    return stored.size if stored is not None and stored.final else None


def _condition(attempt: Attempt, size: int | None, there: int, given_up_before: int) -> LogCondition:
    if attempt.state in OPEN:
        return LogCondition.GROWING
    if size is not None and there >= size:
        return LogCondition.COMPLETE
    is_expected = attempt.report_digest is not None and (attempt.end_time or 0) >= given_up_before
    return LogCondition.ARRIVING if is_expected else LogCondition.INCOMPLETE
