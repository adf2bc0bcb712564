"""When a failed attempt is tried again, and how long the step waits before it."""

from dataclasses import dataclass

from towline_controlplane.model import Failure, FailureClass, Strategy


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of the attempts of a node. `max_attempts` counts failures, `max_lost` reruns after a lost agent."""

    max_attempts: int = 3
    backoff_ms: int = 1_000
    multiplier: float = 2.0
    max_backoff_ms: int = 60_000
    max_lost: int = 3
    strategy: Strategy = Strategy.EXPONENTIAL
    retry_on: frozenset[str] = frozenset({FailureClass.TRANSIENT.value})
    """Classes and codes of the failures that are tried again."""


def may_retry(policy: RetryPolicy, failure: Failure, failures: int) -> bool:
    """Tells whether a step that has now failed `failures` times is tried again."""
    named = not policy.retry_on.isdisjoint((failure.kind.value, failure.code))
    return named and failures < policy.max_attempts


def may_rerun(policy: RetryPolicy, losses: int) -> bool:
    """Tells whether a step whose agent was lost for the `losses`-th time is run again."""
    return losses <= policy.max_lost


def backoff_ms(policy: RetryPolicy, failures: int, jitter: float) -> int:
    """Returns the wait before the retry that follows the `failures`-th failure: capped and fully jittered.

    `jitter` lies in [0, 1); the wait is that share of `min(backoff × multiplier^(failures−1), max_backoff)`, where a
    FIXED strategy has no multiplier.
    """
    grows = policy.strategy is Strategy.EXPONENTIAL and policy.multiplier != 1
    cap = float(min(policy.backoff_ms, policy.max_backoff_ms))
    for _ in range(failures - 1):
        if cap >= policy.max_backoff_ms or cap == 0 or not grows:
            break
        cap = min(cap * policy.multiplier, float(policy.max_backoff_ms))
    return int(cap * jitter)
