"""Rows of artifacts: put under a lease, bound once, read only then, and gone with their run or their hope."""

from dataclasses import replace

from store_samples import Store, a_step, add_run, an_attempt

from towline_controlplane.artifact_records import NamedArtifact
from towline_controlplane.model import AttemptState, Lease, RunState, StepState
from towline_controlplane.store import artifacts, released_blobs, retention, runs
from towline_controlplane.store.database import Transaction

LEASE = Lease("run-1", "a", 1, 7, "token", "agent-1")
A, B = NamedArtifact("a", 1, "a" * 64), NamedArtifact("b/c", 2, "b" * 64)


def add_succeeded(store: Store, run_id: str = "run-1", owner_id: str = "owner-1") -> Lease:
    """Adds a run whose step `a` succeeded with its second attempt."""
    steps = tuple(
        a_step(run_id=run_id, node_id=node, position=n, state=StepState.SUCCEEDED, end_time=1, attempt=2)
        for n, node in enumerate("ab")
    )
    store.write(add_run, run_id, steps, state=RunState.SUCCEEDED, open_steps=0, end_time=1_000, owner_id=owner_id)
    attempts = [
        an_attempt(
            run_id=run_id, node_id="a", number=number, execution_key=f"{run_id}{number}", state=state, end_time=1
        )
        for number, state in ((1, AttemptState.FAILED), (2, AttemptState.SUCCEEDED))
    ]
    store.write(runs.save_changes, attempts=attempts)
    return replace(LEASE, run_id=run_id, attempt=2)


def put(store: Store, lease: Lease, *named: NamedArtifact) -> None:
    for each in named:
        assert store.write(artifacts.put_if_unbound, lease, each, "text/plain")


def names(store: Store, run_id: str = "run-1", node_id: str | None = None, attempt: int = 0) -> list[str]:
    found = store.read(artifacts.list_artifacts, run_id, node_id, attempt, None, 10)
    return [each.artifact.name for each in found]


def blobs_to_remove(store: Store) -> list[str]:
    store.clock.now += 10
    return sorted(store.write(released_blobs.condemn, store.clock.now, 0, 10))


def test_only_what_is_bound_is_seen(store: Store) -> None:
    lease = add_succeeded(store)
    put(store, lease, A, B)
    assert names(store) == []
    assert store.read(artifacts.find_artifact, "run-1", "a", 0, "a") is None
    assert store.read(artifacts.inputs_of, "run-1", ["a"]) == []
    assert store.write(artifacts.bind_many_if_stored, lease, [A]) == 1
    assert names(store) == ["a"]
    found = store.read(artifacts.find_artifact, "run-1", "a", 0, "a")
    assert found is not None
    assert (found.attempt_state, found.artifact.size_bytes) == (AttemptState.SUCCEEDED, 1)
    assert [each.digest for each in store.read(artifacts.inputs_of, "run-1", ["a", "b"])] == [A.digest]


def test_what_is_bound_never_changes(store: Store) -> None:
    lease = add_succeeded(store)
    put(store, lease, A, replace(B, name="a"), A)  # before, the last one counts
    store.write(artifacts.bind_many_if_stored, lease, [A])
    assert not store.write(artifacts.put_if_unbound, lease, replace(B, name="a"), "text/plain")
    [found] = store.read(artifacts.list_artifacts, "run-1", None, 0, None, 10)
    assert found.artifact.digest == A.digest


def test_only_what_was_put_under_the_very_lease_is_bound(store: Store) -> None:
    lease = add_succeeded(store)
    put(store, lease, A, B)
    for other in (replace(lease, epoch=8), replace(lease, attempt=1), replace(lease, node_id="b")):
        assert store.write(artifacts.bind_many_if_stored, other, [A, B]) == 0
    for wrong in (replace(A, digest=B.digest), replace(A, size_bytes=9), replace(A, name="x")):
        assert store.write(artifacts.bind_many_if_stored, lease, [wrong, B]) == 1
    assert store.read(artifacts.put_under, lease) == {"a": A, "b/c": B}
    assert store.read(artifacts.put_under, replace(lease, epoch=8)) == {}


def test_earlier_attempts_keep_theirs(store: Store) -> None:
    second = add_succeeded(store)
    first = replace(second, attempt=1)
    for lease, named in ((first, A), (second, B)):
        put(store, lease, named)
        store.write(artifacts.bind_many_if_stored, lease, [named])
    assert names(store) == ["b/c"]
    assert names(store, attempt=1, node_id="a") == ["a"]
    assert [each.name for each in store.read(artifacts.inputs_of, "run-1", ["a"])] == ["b/c"]


def test_an_owner_has_only_its_own(store: Store) -> None:
    mine, theirs = add_succeeded(store), add_succeeded(store, "run-2", "owner-2")
    put(store, mine, A)
    assert store.read(artifacts.owner_has, "run-1", A)
    assert not store.read(artifacts.owner_has, theirs.run_id, A)
    assert not store.read(artifacts.owner_has, "run-1", replace(A, size_bytes=5))


def test_what_no_result_names_goes_after_a_while(store: Store) -> None:
    lease = add_succeeded(store)
    put(store, lease, A, B)
    store.write(artifacts.bind_many_if_stored, lease, [A])
    assert store.write(artifacts.delete_unbound, store.clock.now, 10) == 0
    store.clock.now += 10
    assert store.write(artifacts.delete_unbound, store.clock.now, 10) == 1
    assert names(store) == ["a"]
    assert blobs_to_remove(store) == [B.digest]


def test_bytes_go_with_the_last_run_that_has_them(store: Store) -> None:
    for run_id in ("run-1", "run-2"):
        lease = add_succeeded(store, run_id)
        put(store, lease, A)
        store.write(artifacts.bind_many_if_stored, lease, [A])
    for run_id, removed in (("run-1", []), ("run-2", [A.digest])):
        store.write(retention.hide_runs, [run_id])
        while store.write(retention.delete_batch):
            pass
        assert names(store, run_id) == []
        assert blobs_to_remove(store) == removed


def test_artifacts_of_a_run_go_in_bounded_batches(store: Store) -> None:
    lease = add_succeeded(store)
    put(store, lease, *(replace(A, name=str(number)) for number in range(5)))

    def rows(tx: Transaction) -> int:
        return artifacts.delete_some(tx, "run-1", 2)

    assert [store.write(rows) for _ in range(4)] == [2, 2, 1, 0]
