"""Attempts are stored as they are."""

from store_samples import Store, add_run, an_attempt

from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.model import AttemptState, Failure, FailureClass, Usage
from towline_controlplane.store import runs

FAILURE = Failure(FailureClass.TRANSIENT, "TIMEOUT", "took too long", "30 s of 30 s")


def test_an_attempt_is_stored_with_every_field(store: Store) -> None:
    full = an_attempt(
        state=AttemptState.FAILED,
        start_time=2_100,
        end_time=2_200,
        error=FAILURE,
        usage=Usage(peak_memory_bytes=2**40, cpu_seconds=0.125),
        report_digest="digest",
        evidence=Evidence(Cause.CRASH, '{"signal":11}'),
        memory_limit_mb=64,
    )
    store.write(add_run)
    store.write(runs.save_changes, attempts=[full])
    assert store.read(runs.list_attempts, "run-1", "a") == [full]
