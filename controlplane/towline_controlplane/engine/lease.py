"""What a lease is worth: whether the holder that presents it may still act for the attempt (I2, I9)."""

from enum import StrEnum

from towline_controlplane.engine.transitions import ATTEMPT_TERMINAL
from towline_controlplane.model import Attempt, Lease, Step, StepState


class Standing(StrEnum):
    """Verdict on a presented lease."""

    CURRENT = "CURRENT"
    REPEATED = "REPEATED"
    """The attempt has ended with exactly this report."""
    OTHER_RESULT = "OTHER_RESULT"
    """The attempt has ended with another report of the same holder."""
    STALE = "STALE"


def standing(step: Step | None, attempt: Attempt | None, lease: Lease, report_digest: str | None = None) -> Standing:
    """Judges `lease` against the rows it names; `report_digest` is given when the holder reports a result."""
    if step is None or attempt is None or not _names_holder(attempt, lease):
        return Standing.STALE
    if attempt.state in ATTEMPT_TERMINAL:
        return _standing_of_ended(attempt, report_digest)
    held = (step.state, step.attempt, step.epoch) == (StepState.LEASED, lease.attempt, lease.epoch)
    return Standing.CURRENT if held else Standing.STALE


def _names_holder(attempt: Attempt, lease: Lease) -> bool:
    return (attempt.epoch, attempt.token_hash, attempt.agent_id) == (lease.epoch, lease.token_hash, lease.agent_id)


def _standing_of_ended(attempt: Attempt, report_digest: str | None) -> Standing:
    if attempt.report_digest is None or report_digest is None:
        return Standing.STALE
    return Standing.REPEATED if attempt.report_digest == report_digest else Standing.OTHER_RESULT
