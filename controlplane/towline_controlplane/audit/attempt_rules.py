"""What holds of the attempts of a step and of the lease on it. Pure."""

import itertools
import re
from collections.abc import Sequence

from towline_controlplane.audit.findings import Findings, RunRows
from towline_controlplane.engine.handout import execution_key
from towline_controlplane.engine.retry import may_retry, more_memory
from towline_controlplane.engine.transitions import ATTEMPT_TERMINAL
from towline_controlplane.model import Attempt, AttemptState, Step, StepState
from towline_dag.choices import RetryPolicy

_FAILED = (AttemptState.FAILED, AttemptState.TIMED_OUT)
_REPORTED = (AttemptState.SUCCEEDED, *_FAILED)
_SHA256 = re.compile("[0-9a-f]{64}")


def check_attempts(rows: RunRows, findings: Findings) -> None:
    """Checks the attempts of every step."""
    for step in rows.steps.values():
        own = rows.attempts.get(step.node_id, ())
        _check_numbers(rows, step, own, findings)
        _check_lease(step, own, findings)
        _check_order(rows.dag.nodes[rows.dag.by_id[step.node_id]].retry, step, own, findings)
        for attempt in own:
            _check_attempt(attempt, findings)


def _check_numbers(rows: RunRows, step: Step, own: Sequence[Attempt], findings: Findings) -> None:
    """Numbers are 1..n, and n is within the budgets of failures and losses (I4)."""
    policy = rows.dag.nodes[rows.dag.by_id[step.node_id]].retry
    node_id, count = step.node_id, len(own)
    findings.equal("I4", "numbers of the attempts", list(range(1, count + 1)), [a.number for a in own], node_id)
    findings.equal("I4", "attempt", count, step.attempt, node_id)
    counted = [attempt for attempt in own if attempt.number > step.attempt_base]
    findings.at_most("I4", "number of attempts", policy.max_attempts + policy.max_lost, len(counted), node_id)
    findings.equal("I4", "failures", sum(a.state in _FAILED for a in counted), step.failures, node_id)
    findings.equal("I4", "losses", sum(a.state is AttemptState.LOST for a in counted), step.losses, node_id)


def _check_lease(step: Step, own: Sequence[Attempt], findings: Findings) -> None:
    """Epochs only rise, and a step is LEASED exactly on its newest attempt, open and of the newest epoch (I3)."""
    node_id, epochs = step.node_id, [attempt.epoch for attempt in own]
    findings.equal("I3", "epochs, rising", sorted(set(epochs)), epochs, node_id)
    findings.equal("I3", "epoch", epochs[-1] if epochs else 0, step.epoch, node_id)
    findings.equal("I3", f"attempts open while {step.state}", _open_attempts(step), _still_open(own), node_id)
    if step.state is StepState.LEASED:
        findings.equal("I3", "holder", own[-1].agent_id if own else None, step.agent_id, node_id)
        findings.equal("I3", "next_attempt while LEASED", step.attempt, step.next_attempt, node_id)


def _open_attempts(step: Step) -> list[int]:
    lapsed = step.state is StepState.READY and 0 < step.attempt == step.next_attempt
    return [step.attempt] if lapsed or step.state is StepState.LEASED else []


def _still_open(own: Sequence[Attempt]) -> list[int]:
    return [attempt.number for attempt in own if attempt.state not in ATTEMPT_TERMINAL]


def _check_order(policy: RetryPolicy, step: Step, own: Sequence[Attempt], findings: Findings) -> None:
    """Only a success ends a step as SUCCEEDED (I7); a retry follows what may be retried, in its time (I13)."""
    counted = [attempt for attempt in own if attempt.number > step.attempt_base]
    winners = [attempt.number for attempt in counted if attempt.state is AttemptState.SUCCEEDED]
    expected = [step.attempt] if step.state is StepState.SUCCEEDED else []
    findings.equal("I7", "winning attempts", expected, winners, step.node_id)
    for attempt, following in itertools.pairwise(counted):
        if attempt.state in _FAILED and attempt.error is not None:
            what = f"failure of attempt {attempt.number}, which was retried: {attempt.error.kind} {attempt.error.code}"
            cause = attempt.evidence.cause if attempt.evidence else None
            enlarged = more_memory(policy, cause, 0, attempt.memory_limit_mb) >= following.memory_limit_mb > 0
            allowed = may_retry(policy, attempt.error, 0, cause) or enlarged
            findings.equal("I13", f"{what}: may be retried", expected=True, found=allowed, node_id=step.node_id)
    if own and own[-1].number == step.next_attempt:
        what = f"create_time of attempt {step.attempt}"
        findings.at_least("I13", what, step.not_before, own[-1].create_time, step.node_id)


def _check_attempt(attempt: Attempt, findings: Findings) -> None:
    node_id, what = attempt.node_id, f"attempt {attempt.number} is {attempt.state}"
    ended = attempt.state in ATTEMPT_TERMINAL
    dated, reported = attempt.end_time is not None, attempt.report_digest is not None
    hashed = _SHA256.fullmatch(attempt.token_hash) is not None
    key = execution_key(attempt.run_id, node_id, attempt.number)
    findings.equal("I1", f"{what}: has an end_time", ended, dated, node_id)
    if attempt.state in _REPORTED or not ended:
        findings.equal("I9", f"{what}: has the digest of a report", ended, reported, node_id)
    findings.equal("I4", f"execution_key of attempt {attempt.number}", key, attempt.execution_key, node_id)
    findings.equal("I25", f"{what}: token is hashed", expected=True, found=hashed, node_id=node_id)
