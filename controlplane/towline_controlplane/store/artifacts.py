"""Files that attempts made: rows that are put while an attempt runs, and bound when its result is accepted.

Only bound rows are read by users and by other steps, and they never change (I22). A row keeps its blob; one that no
result ever binds is deleted after a while.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, delete, exists, select, tuple_

from towline_controlplane.artifact_records import Artifact, NamedArtifact
from towline_controlplane.model import AttemptState, Lease
from towline_controlplane.store import released_blobs, tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import ARTIFACT
from towline_controlplane.store.statements import update, upsert

_KEY = ("run_id", "node_id", "attempt", "name")
_PUT_IF_UNBOUND = upsert(
    "artifacts",
    (*_KEY, "epoch", "digest", "size_bytes", "content_type", "bound", "create_time"),
    key=_KEY,
    only_if="NOT artifacts.bound",
)
_BIND = update("artifacts", ("bound",), key=(*_KEY, "epoch", "digest", "size_bytes"))


@dataclass(frozen=True, slots=True)
class MadeArtifact:
    """A bound artifact, and how its attempt ended."""

    artifact: Artifact
    attempt_state: AttemptState


def put_if_unbound(tx: Transaction, lease: Lease, artifact: NamedArtifact, content_type: str) -> bool:
    """Records that the bytes of an artifact are stored; False if a result has bound one of this name before."""
    place = (lease.run_id, lease.node_id, lease.attempt, artifact.name)
    row = (*place, lease.epoch, artifact.digest, artifact.size_bytes, content_type, False, tx.now)
    return tx.execute_many((_PUT_IF_UNBOUND, [row])) == [1]


def bind_many_if_stored(tx: Transaction, lease: Lease, artifacts: Collection[NamedArtifact]) -> int:
    """Makes artifacts visible that were put under this very lease, with these digests; returns how many there were."""
    place = (lease.run_id, lease.node_id, lease.attempt)
    rows = [(True, *place, each.name, lease.epoch, each.digest, each.size_bytes) for each in artifacts]
    return tx.execute_many((_BIND, rows))[0]


def put_under(tx: Transaction, lease: Lease) -> dict[str, NamedArtifact]:
    """Returns what was put under a lease, by name."""
    rows = tables.artifacts.c
    query = select(rows.name, rows.size_bytes, rows.digest).where(
        rows.run_id == lease.run_id,
        rows.node_id == lease.node_id,
        rows.attempt == lease.attempt,
        rows.epoch == lease.epoch,
    )
    return {name: NamedArtifact(name, size, digest) for name, size, digest in tx.connection.execute(query)}


def owner_has(tx: Transaction, run_id: str, artifact: NamedArtifact) -> bool:
    """Tells whether the owner of a run has an artifact with the same bytes already: nobody else's count."""
    rows, runs = tables.artifacts.c, tables.runs.c
    owner = select(runs.owner_id).where(runs.id == run_id).scalar_subquery()
    theirs = exists().where(runs.id == rows.run_id, runs.owner_id == owner)
    query = select(rows.run_id).where(rows.digest == artifact.digest, rows.size_bytes == artifact.size_bytes, theirs)
    return tx.connection.execute(query.limit(1)).first() is not None


def list_artifacts(
    tx: Transaction, run_id: str, node_id: str | None, attempt: int, after: tuple[str, str] | None, limit: int
) -> list[MadeArtifact]:
    """Returns bound artifacts by node and name, from behind `after`; of the newest attempts if `attempt` is 0."""
    rows = tables.artifacts.c
    query = _made(run_id, attempt).order_by(rows.node_id, rows.name).limit(limit)
    if node_id is not None:
        query = query.where(rows.node_id == node_id)
    if after is not None:
        query = query.where(tuple_(rows.node_id, rows.name) > after)
    return [_load(row) for row in tx.connection.execute(query)]


def find_artifact(tx: Transaction, run_id: str, node_id: str, attempt: int, name: str) -> MadeArtifact | None:
    """Returns a bound artifact; of the newest attempt if `attempt` is 0."""
    rows = tables.artifacts.c
    row = tx.connection.execute(_made(run_id, attempt).where(rows.node_id == node_id, rows.name == name)).first()
    return None if row is None else _load(row)


def inputs_of(tx: Transaction, run_id: str, sources: Sequence[str]) -> list[Artifact]:
    """Returns the artifacts of those of the steps that SUCCEEDED, by node and name."""
    rows, steps = tables.artifacts.c, tables.steps.c
    query = _made(run_id, 0).where(rows.node_id.in_(sources), steps.state == "SUCCEEDED")
    return [_load(row).artifact for row in tx.connection.execute(query.order_by(rows.node_id, rows.name))]


def delete_unbound(tx: Transaction, put_before: int, limit: int) -> int:
    """Deletes artifacts that no result has bound since they were put before a time (µs); returns how many."""
    rows = tables.artifacts.c
    return _delete(tx, select(*_KEYS, rows.digest).where(~rows.bound, rows.create_time < put_before).limit(limit))


def delete_some(tx: Transaction, run_id: str, limit: int) -> int:
    """Deletes artifacts of a run; returns how many."""
    return _delete(
        tx, select(*_KEYS, tables.artifacts.c.digest).where(tables.artifacts.c.run_id == run_id).limit(limit)
    )


_KEYS = tuple(tables.artifacts.c[name] for name in _KEY)


def _delete(tx: Transaction, query: Select[Any]) -> int:
    """Deletes rows, and notes their blobs as perhaps garbage first."""
    found = list(tx.connection.execute(query.with_for_update(skip_locked=True)))
    if not found:
        return 0
    released_blobs.note_use(tx, {row[-1] for row in found})
    tx.connection.execute(delete(tables.artifacts).where(tuple_(*_KEYS).in_([tuple(row[:-1]) for row in found])))
    return len(found)


def _made(run_id: str, attempt: int) -> Select[Any]:
    rows, steps, attempts = tables.artifacts.c, tables.steps.c, tables.attempts.c
    of_step = and_(steps.run_id == rows.run_id, steps.node_id == rows.node_id)
    of_attempt = and_(attempts.run_id == rows.run_id, attempts.node_id == rows.node_id, attempts.number == rows.attempt)
    wanted = rows.attempt == (attempt or steps.attempt)
    tables_joined = tables.artifacts.join(tables.steps, of_step).join(tables.attempts, of_attempt)
    query = select(*ARTIFACT.columns(tables.artifacts), attempts.state).select_from(tables_joined)
    return query.where(rows.run_id == run_id, wanted, rows.bound)


def _load(row: Any) -> MadeArtifact:
    return MadeArtifact(ARTIFACT.load(row[:-1]), AttemptState(row[-1]))
