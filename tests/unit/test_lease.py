"""What a presented lease is worth, case by case (I2, I9)."""

from dataclasses import replace

import pytest

from towline_controlplane.engine.lease import Standing, standing
from towline_controlplane.model import Attempt, AttemptState, Lease, Step, StepState

STEP = Step("run-1", "a", 0, StepState.LEASED, "queue", 0, open_edges=0, attempt=2, next_attempt=2, epoch=3)
ATTEMPT = Attempt("run-1", "a", 2, "key", AttemptState.RUNNING, 3, "agent-1", "session-1", "hash-3", 0, 0)
ENDED = replace(ATTEMPT, state=AttemptState.SUCCEEDED, report_digest="digest-1")
LEASE = Lease("run-1", "a", 2, 3, "hash-3", "agent-1")
DONE = replace(STEP, state=StepState.SUCCEEDED)
CURRENT, REPEATED, OTHER, STALE = Standing


@pytest.mark.parametrize(
    ("step", "attempt", "lease", "digest", "expected"),
    [
        (STEP, ATTEMPT, LEASE, None, CURRENT),
        (STEP, ATTEMPT, LEASE, "digest-1", CURRENT),
        (STEP, replace(ATTEMPT, state=AttemptState.OFFERED), LEASE, None, CURRENT),
        (None, ATTEMPT, LEASE, None, STALE),
        (STEP, None, LEASE, None, STALE),
        (STEP, ATTEMPT, replace(LEASE, epoch=2), None, STALE),
        (STEP, ATTEMPT, replace(LEASE, epoch=4), None, STALE),
        (STEP, ATTEMPT, replace(LEASE, attempt=1), None, STALE),
        (STEP, ATTEMPT, replace(LEASE, token_hash="hash-2"), None, STALE),
        (STEP, ATTEMPT, replace(LEASE, agent_id="agent-2"), None, STALE),
        (replace(STEP, state=StepState.READY), ATTEMPT, LEASE, None, STALE),
        (replace(STEP, state=StepState.READY, next_attempt=3), ATTEMPT, LEASE, "digest-1", STALE),
        (replace(STEP, state=StepState.PARKED), replace(ATTEMPT, state=AttemptState.LOST), LEASE, "digest-1", STALE),
        (replace(STEP, epoch=4), ATTEMPT, LEASE, "digest-1", STALE),
        (replace(STEP, attempt=3, epoch=4), ATTEMPT, LEASE, None, STALE),
        (DONE, ENDED, LEASE, "digest-1", REPEATED),
        (DONE, ENDED, LEASE, "digest-2", OTHER),
        (DONE, ENDED, LEASE, None, STALE),
        (DONE, ENDED, replace(LEASE, token_hash="hash-2"), "digest-1", STALE),
        (DONE, ENDED, replace(LEASE, agent_id="agent-2"), "digest-1", STALE),
        (DONE, replace(ENDED, report_digest=None), LEASE, "digest-1", STALE),
        (replace(STEP, state=StepState.READY, next_attempt=3), replace(ENDED, state=AttemptState.FAILED), LEASE,
         "digest-1", REPEATED),
        (replace(STEP, state=StepState.READY), replace(ATTEMPT, state=AttemptState.LOST), LEASE, "digest-1", STALE),
    ],
)  # fmt: skip
def test_standing(
    step: Step | None, attempt: Attempt | None, lease: Lease, digest: str | None, expected: Standing
) -> None:
    assert standing(step, attempt, lease, digest) is expected
