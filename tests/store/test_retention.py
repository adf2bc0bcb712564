"""What is deleted, in which order, and by how many at once."""

import pytest
from sqlalchemy import func, select
from store_samples import Store, a_step, add_run, an_attempt

from towline_controlplane.errors import Unavailable
from towline_controlplane.model import RunState, StepState
from towline_controlplane.store import logs, released_blobs, retention, run_lists, runs, tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.logs import LogAppend
from towline_controlplane.store.run_lists import RunFilter

DIGEST = "0" * 64


def add_ended(store: Store, run_id: str, end_time: int, steps: int = 1) -> None:
    rows = tuple(
        a_step(run_id=run_id, node_id=f"n{n}", position=n, state=StepState.SUCCEEDED, end_time=1, output_digest=DIGEST)
        for n in range(steps)
    )
    store.write(add_run, run_id, rows, state=RunState.SUCCEEDED, open_steps=0, end_time=end_time)
    store.write(runs.save_changes, attempts=[an_attempt(run_id=run_id, node_id="n0")])
    store.write(logs.append_many, [LogAppend(run_id, "n0", 1, 0, b"line\n")])


def drain(store: Store) -> list[retention.Deleted]:
    batches: list[retention.Deleted] = []
    while batch := store.write(retention.delete_batch):
        batches.append(batch)
    return batches


def rows_of(tx: Transaction, run_id: str) -> dict[str, int]:
    counts = {
        table.name: tx.connection.execute(select(func.count()).where(table.c.run_id == run_id)).scalar_one()
        for table, _ in retention.OWNED
    }
    return {name: count for name, count in counts.items() if count}


def test_every_table_of_a_run_is_deleted_in_batches() -> None:
    owned = {
        table.name
        for table in tables.metadata.tables.values()
        for key in table.foreign_keys
        if key.column.table.name in ("runs", "steps")
    }
    assert {table.name for table, _ in retention.OWNED} == owned


def test_the_oldest_runs_go_first_and_open_ones_never(store: Store) -> None:
    store.write(add_run, "open")
    for number in range(4):
        add_ended(store, f"run-{number}", 1_000 + number)
    assert store.write(retention.hide_ended_runs, 1_003, 2) == 2
    found = store.read(run_lists.list_runs, RunFilter(), None, 10)
    assert {run.id for run in found} == {"open", "run-2", "run-3"}
    assert store.write(retention.hide_ended_runs, 1_003, 2) == 1
    assert store.write(retention.hide_ended_runs, 1_003, 2) == 0


def test_a_hidden_run_is_seen_by_nobody(store: Store) -> None:
    add_ended(store, "run-1", 1_000)
    store.write(retention.hide_runs, ["run-1"])
    assert store.read(runs.get_run, "run-1", None) is None
    assert store.write(runs.lock_runs, ["run-1"]) == {}
    assert store.read(run_lists.list_runs, RunFilter(), None, 10) == []


def test_an_open_run_cannot_be_hidden(store: Store) -> None:
    store.write(add_run)
    store.write(retention.hide_runs, ["run-1"])
    assert store.read(runs.get_run, "run-1", None) is not None


def test_a_run_goes_with_all_its_rows_in_bounded_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "OWNED", tuple((table, min(most, 2)) for table, most in retention.OWNED))
    add_ended(store, "run-1", 1_000, steps=5)
    add_ended(store, "run-2", 1_000, steps=1)
    store.write(retention.hide_runs, ["run-1"])
    batches = drain(store)
    assert max(batch.rows for batch in batches) == 2
    assert [batch.run_gone for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert store.read(rows_of, "run-1") == {}
    assert set(store.read(rows_of, "run-2")) >= {"steps", "attempts", "log_chunks", "run_inputs"}
    assert store.read(runs.get_run, "run-2", None) is not None


def test_deletion_goes_on_where_a_crash_left_it(store: Store) -> None:
    add_ended(store, "run-1", 1_000, steps=3)
    store.write(retention.hide_runs, ["run-1"])
    store.write(retention.delete_batch)
    assert store.read(runs.get_run, "run-1", None) is None
    assert drain(store)[-1].run_gone
    assert store.read(rows_of, "run-1") == {}


def test_the_blobs_of_a_deleted_run_are_condemned_once_nothing_uses_them(store: Store) -> None:
    add_ended(store, "run-1", 1_000)
    add_ended(store, "run-2", 1_000)
    store.write(retention.hide_runs, ["run-1"])
    drain(store)
    store.clock.now += 10
    assert store.write(released_blobs.condemn, store.clock.now, 0, 10) == []
    store.write(retention.hide_runs, ["run-2"])
    drain(store)
    assert store.write(released_blobs.condemn, store.clock.now, 0, 10) == []
    store.clock.now += 10
    assert store.write(released_blobs.condemn, store.clock.now, 0, 10) == [DIGEST]


def test_a_condemned_blob_cannot_be_used_until_it_is_gone(store: Store) -> None:
    store.write(released_blobs.note_use, [DIGEST])
    store.clock.now += 10
    assert store.write(released_blobs.condemn, store.clock.now, 0, 10) == [DIGEST]
    assert store.write(released_blobs.condemn, store.clock.now, 0, 10) == []
    with pytest.raises(Unavailable):
        store.write(released_blobs.note_use, [DIGEST, "1" * 64])
    store.clock.now += 10
    assert store.write(released_blobs.condemn, 0, store.clock.now, 10) == [DIGEST]
    store.write(released_blobs.forget, [DIGEST])
    store.write(released_blobs.note_use, [DIGEST])


def test_a_blob_that_is_used_again_is_kept(store: Store) -> None:
    store.write(released_blobs.note_use, [DIGEST])
    store.clock.now += 10
    store.write(released_blobs.note_use, [DIGEST])
    assert store.write(released_blobs.condemn, store.clock.now, 0, 10) == []


def test_a_key_is_kept_as_long_as_its_run(store: Store) -> None:
    add_ended(store, "run-1", 1_000)
    store.write(runs.remember_requests, [runs.Request("owner-1", "key", "digest", "run-1")])
    later = store.clock.now + 1
    assert store.read(retention.orphaned_requests, later, 10) == []
    store.write(retention.hide_runs, ["run-1"])
    drain(store)
    assert store.read(retention.orphaned_requests, later - 1, 10) == []
    assert store.read(retention.orphaned_requests, later, 10) == [("owner-1", "key")]
    assert store.write(retention.delete_requests, [("owner-1", "key"), ("owner-1", "other")]) == 1
