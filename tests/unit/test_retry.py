"""Retry arithmetic: who is tried again, and when."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_controlplane.engine.retry import backoff_ms, may_rerun, may_retry, more_memory
from towline_controlplane.evidence import Cause
from towline_controlplane.model import Failure, FailureClass
from towline_dag.choices import RetryPolicy

policies = st.builds(
    RetryPolicy,
    backoff_ms=st.integers(0, 604_800_000),
    multiplier=st.floats(1, 1_000),
    max_backoff_ms=st.integers(1, 604_800_000),
)
jitters = st.floats(0, 1, exclude_max=True)
NEARLY_ONE = math.nextafter(1, 0)


@pytest.mark.parametrize(
    ("failures", "longest_ms"), [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (8, 60_000)]
)
def test_the_wait_doubles_up_to_a_minute_by_default(failures: int, longest_ms: int) -> None:
    assert backoff_ms(RetryPolicy(), failures, 0.0) == 0
    assert backoff_ms(RetryPolicy(), failures, 0.5) == longest_ms // 2
    assert longest_ms - 1 <= backoff_ms(RetryPolicy(), failures, NEARLY_ONE) <= longest_ms


@given(policy=policies, failures=st.integers(1, 200), jitter=jitters)
def test_no_wait_is_longer_than_the_longest_allowed(policy: RetryPolicy, failures: int, jitter: float) -> None:
    assert 0 <= backoff_ms(policy, failures, jitter) <= policy.max_backoff_ms


@given(policy=policies, failures=st.integers(1, 100), jitter=jitters)
def test_the_next_wait_is_never_shorter_at_the_same_jitter(policy: RetryPolicy, failures: int, jitter: float) -> None:
    assert backoff_ms(policy, failures, jitter) <= backoff_ms(policy, failures + 1, jitter)


@given(policy=policies, failures=st.integers(1, 8))
def test_jitter_spreads_over_the_whole_wait(policy: RetryPolicy, failures: int) -> None:
    longest = min(policy.backoff_ms * policy.multiplier ** (failures - 1), policy.max_backoff_ms)
    assert backoff_ms(policy, failures, 0.0) == 0
    assert backoff_ms(policy, failures, NEARLY_ONE) == pytest.approx(longest, abs=1.0, rel=1e-9)
    assert backoff_ms(policy, failures, 0.5) == pytest.approx(longest / 2, abs=1.0, rel=1e-9)


@given(policy=policies)
def test_a_huge_number_of_failures_neither_overflows_nor_takes_long(policy: RetryPolicy) -> None:
    assert backoff_ms(policy, 10**9 if policy.multiplier > 1.1 else 10**4, 0.5) <= policy.max_backoff_ms


TRANSIENT = Failure(FailureClass.TRANSIENT, "BUSY", "busy")
PERMANENT = Failure(FailureClass.PERMANENT, "BROKEN", "broken")


@pytest.mark.parametrize(
    ("failure", "failures", "again"),
    [(TRANSIENT, 1, True), (TRANSIENT, 2, True), (TRANSIENT, 3, False), (TRANSIENT, 4, False), (PERMANENT, 1, False)],
)
def test_only_transient_failures_within_the_attempts_are_tried_again(
    failure: Failure, failures: int, again: bool
) -> None:
    assert may_retry(RetryPolicy(max_attempts=3), failure, failures) is again


@pytest.mark.parametrize(("losses", "again"), [(1, True), (2, True), (3, False)])
def test_losses_have_a_budget_of_their_own(losses: int, again: bool) -> None:
    assert may_rerun(RetryPolicy(max_attempts=1, max_lost=2), losses) is again


def test_no_rerun_without_a_budget() -> None:
    assert not may_rerun(RetryPolicy(max_lost=0), 1)


@pytest.mark.parametrize(
    ("retry_on", "cause", "expected"),
    [
        ("MEMORY_LIMIT", Cause.MEMORY_LIMIT, True),
        ("CRASH", Cause.CRASH, True),
        ("CRASH", Cause.SIGNAL, False),
        ("CRASH", None, False),
        ("SIGNAL", Cause.CRASH, True),  # the code of the failure
    ],
)
def test_a_cause_is_a_name_to_retry_on(retry_on: str, cause: Cause | None, expected: bool) -> None:
    failure = Failure(FailureClass.PERMANENT, "SIGNAL", "crashed")
    assert may_retry(RetryPolicy(retry_on=frozenset({retry_on})), failure, 1, cause) is expected


@pytest.mark.parametrize(
    ("multiplier", "most", "cause", "asked", "had", "expected"),
    [
        (2, 0, Cause.MEMORY_LIMIT, 0, 512, 1024),
        (2, 0, Cause.KERNEL_OOM, 1024, 1024, 2048),
        (1.5, 0, Cause.MEMORY_LIMIT, 0, 101, 151),
        (2, 700, Cause.MEMORY_LIMIT, 0, 512, 700),
        (2, 700, Cause.MEMORY_LIMIT, 700, 700, 0),
        (2, 100, Cause.MEMORY_LIMIT, 0, 512, 0),
        (1, 0, Cause.MEMORY_LIMIT, 0, 512, 0),
        (2, 0, Cause.CRASH, 0, 512, 0),
        (2, 0, None, 0, 512, 0),
        (2, 0, Cause.MEMORY_LIMIT, 1024, 600, 0),  # the server allows no more
        (2, 0, Cause.MEMORY_LIMIT, 0, 0, 0),  # an attempt from before limits were recorded
    ],
)
def test_memory_grows_up_to_its_cap(
    multiplier: float, most: int, cause: Cause | None, asked: int, had: int, expected: int
) -> None:
    policy = RetryPolicy(memory_multiplier=multiplier, max_memory_mb=most)
    assert more_memory(policy, cause, asked, had) == expected
