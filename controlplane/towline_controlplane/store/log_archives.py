"""Logs of attempts as objects in the blob store, and the chunks that they take the place of.

A log is due once its last byte is in, or so long after the end of its attempt that the rest is not expected any more.
Its chunks go in the transaction that names the object; whoever reads in one snapshot sees the one or the other. Bytes
that come later are chunks again, until the log is archived anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, text, update

from towline_controlplane.store import log_tables, tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.logs import LogChunk, LogKey

_LOGS = tables.attempt_logs


@dataclass(frozen=True, slots=True)
class ArchivedLog:
    """The object that holds the first `size` bytes of a log: its chunks from one arrival to another."""

    key: LogKey
    size: int
    chunks: int
    object_digest: str
    object_size: int
    index_size: int
    first_arrival: int
    last_arrival: int
    content_digest: str
    """SHA-256 of these bytes of the log."""


@dataclass(frozen=True, slots=True)
class DueLog:
    """A log with chunks to archive, and what is archived of it."""

    key: LogKey
    size: int
    archived: ArchivedLog | None


def claim_due(tx: Transaction, ended_before: int, claim_until: int, limit: int) -> list[DueLog]:
    """Returns logs that are due and whose claim has run out, and claims them (times in µs); others get others.

    Due are those that are final, and those whose attempts ended before a time.
    """
    logs, attempts = _LOGS.c, tables.attempts.c
    own = and_(attempts.run_id == logs.run_id, attempts.node_id == logs.node_id, attempts.number == logs.attempt)
    due = or_(logs.final, and_(attempts.end_time.is_not(None), attempts.end_time < ended_before))
    query = select(_LOGS).join(tables.attempts, own)
    query = query.where(text(log_tables.UNARCHIVED), logs.claimed_until < tx.now, due)
    rows = tx.connection.execute(query.limit(limit).with_for_update(of=_LOGS, skip_locked=True)).all()
    for row in rows:
        claimed = update(_LOGS).where(*_is((row.run_id, row.node_id, row.attempt)))
        tx.connection.execute(claimed.values(claimed_until=claim_until))
    return [DueLog((row.run_id, row.node_id, row.attempt), row.size, _archived(row)) for row in rows]


def read_rows(tx: Transaction, key: LogKey, after: int, limit_bytes: int) -> list[LogChunk]:
    """Returns the chunks of one log that arrived behind `after`, up to the one that reaches `limit_bytes`."""
    chunks = tables.log_chunks.c
    run_id, node_id, attempt = key
    query = select(chunks.arrival, chunks.start, chunks.data).where(
        chunks.run_id == run_id, chunks.node_id == node_id, chunks.attempt == attempt, chunks.arrival > after
    )
    found: list[LogChunk] = []
    total = 0
    with tx.connection.execute(query.order_by(chunks.arrival), execution_options={"yield_per": 16}) as rows:
        for arrival, start, data in rows:
            found.append(LogChunk(arrival, 0, node_id, attempt, start, data))
            total += len(data)
            if total >= limit_bytes:
                break
    return found


def archive_if_unchanged(tx: Transaction, due: DueLog, archived: ArchivedLog) -> bool:
    """Puts the object in the place of the chunks that it holds, unless somebody else has; tells whether it did."""
    logs, chunks = _LOGS.c, tables.log_chunks.c
    before = due.archived.size if due.archived is not None else 0
    statement = update(_LOGS).where(*_is(due.key), logs.archived_size == before, logs.size >= archived.size)
    values = {
        "archived_size": archived.size,
        "archived_chunks": archived.chunks,
        "content_digest": archived.content_digest,
        "object_digest": archived.object_digest,
        "object_size": archived.object_size,
        "index_size": archived.index_size,
        "first_arrival": archived.first_arrival,
        "last_arrival": archived.last_arrival,
        "claimed_until": 0,
    }
    if tx.connection.execute(statement.values(values)).rowcount == 0:
        return False
    run_id, node_id, attempt = due.key
    held = (chunks.run_id == run_id, chunks.node_id == node_id, chunks.attempt == attempt)
    tx.connection.execute(delete(tables.log_chunks).where(*held, chunks.arrival <= archived.last_arrival))
    return True


def archives_from(
    tx: Transaction, run_id: str, node_id: str | None, arrival: int, most: int
) -> tuple[list[ArchivedLog], int | None]:
    """Returns the objects that may hold chunks from an arrival on, and before which arrival they are all there are.

    All that begin up to this arrival, and the next `most` that begin behind it; None if these are all.
    """
    logs = _LOGS.c
    query = select(_LOGS).where(logs.run_id == run_id, text(log_tables.ARCHIVED), logs.last_arrival >= arrival)
    if node_id is not None:
        query = query.where(logs.node_id == node_id)
    query = query.order_by(logs.first_arrival)
    begun = tx.connection.execute(query.where(logs.first_arrival <= arrival)).all()
    coming = tx.connection.execute(query.where(logs.first_arrival > arrival).limit(most + 1)).all()
    bound = coming[most].first_arrival if len(coming) > most else None
    found = [_archived(row) for row in (*begun, *coming[:most])]
    return [each for each in found if each is not None], bound


def load_archives(tx: Transaction, run_id: str, node_ids: Sequence[str]) -> dict[LogKey, ArchivedLog]:
    """Returns the archived logs of all attempts of some steps of a run."""
    logs = _LOGS.c
    query = select(_LOGS).where(logs.run_id == run_id, logs.node_id.in_(node_ids), text(log_tables.ARCHIVED))
    found = [_archived(row) for row in tx.connection.execute(query)]
    return {each.key: each for each in found if each is not None}


def _is(key: LogKey) -> tuple[ColumnElement[bool], ...]:
    run_id, node_id, attempt = key
    return (_LOGS.c.run_id == run_id, _LOGS.c.node_id == node_id, _LOGS.c.attempt == attempt)


def _archived(row: Any) -> ArchivedLog | None:
    if row.object_digest is None:
        return None
    return ArchivedLog(
        key=(row.run_id, row.node_id, row.attempt),
        size=row.archived_size,
        chunks=row.archived_chunks,
        object_digest=row.object_digest,
        object_size=row.object_size,
        index_size=row.index_size,
        first_arrival=row.first_arrival,
        last_arrival=row.last_arrival,
        content_digest=row.content_digest,
    )
