"""When a failed attempt is tried again, how long the step waits before it, and with how much memory."""

from towline_controlplane.evidence import Cause
from towline_controlplane.model import Failure
from towline_dag.choices import RetryPolicy, Strategy
from towline_dag.limits import MAX_MEMORY_MB

OUT_OF_MEMORY = frozenset({Cause.MEMORY_LIMIT, Cause.KERNEL_OOM})


def may_retry(policy: RetryPolicy, failure: Failure, failures: int, cause: Cause | None = None) -> bool:
    """Tells whether a step that has now failed `failures` times is tried again for what its failure is called."""
    names = (failure.kind.value, failure.code, cause.value if cause else "")
    return not policy.retry_on.isdisjoint(names) and failures < policy.max_attempts


def more_memory(policy: RetryPolicy, cause: Cause | None, asked_mb: int, had_mb: int) -> int:
    """Returns the limit of the next attempt after one that ran out of memory; 0 if more is not to be had.

    `asked_mb` is what the failed one was raised to, or 0, and `had_mb` what it got: less, if the server allows no more.
    """
    if cause not in OUT_OF_MEMORY or asked_mb > had_mb:
        return 0
    raised = min(int(had_mb * policy.memory_multiplier), policy.max_memory_mb or MAX_MEMORY_MB)
    return raised if raised > had_mb else 0


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
