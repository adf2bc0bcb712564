"""Deletes what is past its time, a bounded number of rows in each transaction.

A run is deleted in two steps: it is *hidden* first, so that nobody sees it any more, and its rows follow in batches.
A crash in between leaves a hidden run, with which the next batch goes on. All statements name their rows by run alone:
where the tables are partitioned by time, dropping a partition takes the place of the batches.

Several replicas may delete at once: a run is locked while a batch of it is deleted, and others pass over it.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Select, Table, delete, exists, select, tuple_, update

from towline_controlplane.store import artifacts, released_blobs, tables
from towline_controlplane.store.database import Transaction

HIDDEN = 0
"""The end time of a run that is being deleted: the first ones in the index by end time."""

OWNED: tuple[tuple[Table, int], ...] = (
    (tables.log_chunks, 64),
    (tables.attempt_logs, 1_000),
    (tables.run_logs, 1),
    (tables.events, 1_000),
    (tables.artifacts, 1_000),
    (tables.attempts, 1_000),
    (tables.steps, 1_000),
    (tables.concurrency_slots, 1),
    (tables.run_inputs, 1),
)
"""What a run owns, in the order of its deletion, and how many rows of it go at a time."""
_WITH_BLOBS = (tables.attempt_logs, tables.steps)


@dataclass(frozen=True, slots=True)
class Deleted:
    """Rows that a batch deleted, and whether the run went with them."""

    rows: int
    run_gone: bool = False


def hide_runs(tx: Transaction, run_ids: Collection[str]) -> None:
    """Makes runs that have ended invisible for good; the caller has locked them."""
    runs = tables.runs.c
    statement = update(tables.runs).where(runs.id.in_(sorted(run_ids)), runs.end_time.is_not(None))
    tx.connection.execute(statement.values(end_time=HIDDEN))


def hide_ended_runs(tx: Transaction, ended_before: int, limit: int) -> int:
    """Hides runs that ended before a time (µs), the oldest first; returns how many."""
    runs = tables.runs.c
    query = select(runs.id).where(runs.end_time > HIDDEN, runs.end_time < ended_before)
    locked = query.order_by(runs.end_time).limit(limit).with_for_update(skip_locked=True)
    run_ids = list(tx.connection.scalars(locked))
    hide_runs(tx, run_ids)
    return len(run_ids)


def delete_batch(tx: Transaction) -> Deleted | None:
    """Deletes some rows of a hidden run, and at last the run; None if no run is hidden that another does not hold."""
    runs = tables.runs.c
    query = select(runs.id).where(runs.end_time == HIDDEN).order_by(runs.id).limit(1)
    run_id = tx.connection.scalar(query.with_for_update(skip_locked=True))
    if run_id is None:
        return None
    for table, most in OWNED:
        if table in _WITH_BLOBS:
            released_blobs.release(tx, run_id)
        if rows := _delete_some(tx, table, run_id, most):
            return Deleted(rows)
    tx.connection.execute(delete(tables.runs).where(runs.id == run_id))
    return Deleted(1, run_gone=True)


def orphaned_requests(tx: Transaction, made_before: int, limit: int) -> list[tuple[str, str]]:
    """Returns idempotency keys (owner id, request id) from before a time (µs) whose run is gone."""
    requests = tables.requests.c
    gone = ~exists().where(tables.runs.c.id == requests.run_id)
    query = select(requests.owner_id, requests.request_id).where(requests.create_time < made_before, gone)
    return [(owner_id, request_id) for owner_id, request_id in tx.connection.execute(query.limit(limit))]


def delete_requests(tx: Transaction, keys: Collection[tuple[str, str]]) -> int:
    """Deletes idempotency keys; returns how many."""
    requests = tables.requests.c
    statement = delete(tables.requests).where(tuple_(requests.owner_id, requests.request_id).in_(list(keys)))
    return tx.connection.execute(statement).rowcount


def unused_workflows(tx: Transaction, deleted_before: int, limit: int) -> list[str]:
    """Returns workflows that were deleted before a time (µs) and have no run left."""
    return list(tx.connection.scalars(_unused_workflows(deleted_before).limit(limit)))


def delete_workflows(tx: Transaction, workflow_ids: Collection[str], deleted_before: int) -> int:
    """Deletes those of the workflows that are still unused, with their versions; returns how many."""
    still = _unused_workflows(deleted_before).where(tables.workflows.c.id.in_(list(workflow_ids)))
    unused = list(tx.connection.scalars(still))
    versions = tables.workflow_versions
    tx.connection.execute(delete(versions).where(versions.c.workflow_id.in_(unused)))
    return tx.connection.execute(delete(tables.workflows).where(tables.workflows.c.id.in_(unused))).rowcount


def delete_expired_tokens(tx: Transaction) -> int:
    """Deletes enrollment tokens that nobody can use any more because of their age; returns how many."""
    tokens = tables.enrollment_tokens
    return tx.connection.execute(delete(tokens).where(tokens.c.expire_time <= tx.now)).rowcount


def _delete_some(tx: Transaction, table: Table, run_id: str, most: int) -> int:
    if table is tables.artifacts:
        return artifacts.delete_some(tx, run_id, most)
    keys = [column for column in table.primary_key.columns if column.name != "run_id"]
    of_run = table.c.run_id == run_id
    if most > 1 and keys:
        some = select(*keys).where(of_run).limit(most)
        of_run &= tuple_(*keys).in_(some) if len(keys) > 1 else keys[0].in_(some)
    return tx.connection.execute(delete(table).where(of_run)).rowcount


def _unused_workflows(deleted_before: int) -> Select[str]:
    workflows = tables.workflows.c
    in_use = exists().where(tables.runs.c.workflow_id == workflows.id)
    return select(workflows.id).where(workflows.delete_time < deleted_before, ~in_use)
