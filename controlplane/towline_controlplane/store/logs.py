"""Logs of attempts: byte streams that grow only at their end, and readers with a cursor.

Each chunk gets the next number of its run, its `arrival`, under the lock of the run's row in `run_logs`. The lock is
held until the commit, so that a number is visible only after all smaller ones, whichever control plane wrote them: a
cursor that stands behind a number has missed nothing before it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, and_, func, not_, select

from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.statements import Statement, as_json, insert, insert_if_absent, update, upsert

_FIRST_OF_RUN = insert_if_absent("run_logs", ("run_id", "chunks"))
_LOCK_RUNS = Statement("SELECT r.run_id, r.chunks FROM run_logs r WHERE r.run_id IN {ids} ORDER BY r.run_id {lock}")
_COUNT_CHUNKS = update("run_logs", ("chunks",), key=("run_id",))
_LOAD_SIZES = Statement(
    "SELECT l.run_id, l.node_id, l.attempt, l.size, l.final FROM {keys} CROSS JOIN attempt_logs l"
    " WHERE l.run_id = k.run_id AND l.node_id = k.node_id"
)
_KEY = ("run_id", "node_id", "attempt")
_PUT_SIZE = upsert("attempt_logs", (*_KEY, "size", "final"), key=_KEY)
_INSERT_CHUNK = insert("log_chunks", ("run_id", "arrival", "node_id", "attempt", "start", "data"))

_FETCH_ROWS = 16

LogKey = tuple[str, str, int]
"""Run id, node id and number of an attempt."""


@dataclass(frozen=True, slots=True)
class LogAppend:
    """Bytes of an attempt's log from `offset` on; `final` if nothing follows."""

    run_id: str
    node_id: str
    attempt: int
    offset: int
    data: bytes
    final: bool = False


@dataclass(frozen=True, slots=True)
class LogPosition:
    """A place in the logs of a run: `used` bytes of the chunk `arrival` are read, and all chunks before it."""

    arrival: int
    used: int


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of an attempt's log from `offset` on. A reader that took n of them goes on after `position(n)`."""

    arrival: int
    skipped: int
    node_id: str
    attempt: int
    offset: int
    data: bytes

    def position(self, count: int) -> LogPosition:
        """Returns the place behind the first `count` bytes of `data`."""
        return LogPosition(self.arrival, self.skipped + count)


@dataclass(frozen=True, slots=True)
class LogSize:
    """How many bytes of an attempt's log are stored, and whether that is all of it."""

    size: int
    final: bool


def append_many(tx: Transaction, appends: Sequence[LogAppend]) -> list[int]:
    """Takes of each append the bytes that are new at the end of its log; returns for each the next wanted offset.

    Bytes stored before are ignored, and beyond a gap nothing is taken, so that the log is exactly the stream (I14).
    """
    counts = _lock_runs(tx, appends)
    growth = _Growth(counts, load_sizes(tx, {(append.run_id, append.node_id) for append in appends}))
    offsets = [growth.take(append) for append in appends]
    tx.execute_many(
        (_INSERT_CHUNK, growth.chunks),
        (_PUT_SIZE, [(*key, size.size, size.final) for key, size in growth.grown.items()]),
        (_COUNT_CHUNKS, [(count, run_id) for run_id, count in growth.counts.items()]),
    )
    return offsets


def load_sizes(tx: Transaction, keys: Collection[tuple[str, str]]) -> dict[LogKey, LogSize]:
    """Returns the sizes of the logs of all attempts of the steps that have one, by run, node and attempt."""
    rows = tx.fetch(_LOAD_SIZES, as_json(keys))
    return {(run_id, node_id, attempt): LogSize(size, bool(final)) for run_id, node_id, attempt, size, final in rows}


def read_chunks(
    tx: Transaction, run_id: str, node_id: str | None, after: LogPosition | None, limit_bytes: int
) -> list[LogChunk]:
    """Returns what follows `after` of one node, or of all (None), in the order of arrival.

    That is the order of the bytes within an attempt. It ends with the chunk that reaches `limit_bytes`.
    """
    found: list[LogChunk] = []
    total = 0
    query = _chunks(run_id, node_id, after)
    with tx.connection.execute(query, execution_options={"yield_per": _FETCH_ROWS}) as rows:
        for row in rows:
            found.append(_unread(row, after))
            total += len(found[-1].data)
            if total >= limit_bytes:
                break
    return found


@dataclass(slots=True)
class _Growth:
    """What a batch of appends adds to the numbers of chunks by run and to the sizes by attempt."""

    counts: dict[str, int]
    sizes: dict[LogKey, LogSize]
    grown: dict[LogKey, LogSize] = field(default_factory=dict[LogKey, LogSize])
    chunks: list[tuple[str, int, str, int, int, bytes]] = field(
        default_factory=list[tuple[str, int, str, int, int, bytes]]
    )

    def take(self, append: LogAppend) -> int:
        key = (append.run_id, append.node_id, append.attempt)
        known = self.grown.get(key) or self.sizes.get(key) or LogSize(0, final=False)
        fresh = append.data[known.size - append.offset :] if append.offset <= known.size else b""
        size = known.size + len(fresh)
        if fresh:
            self.counts[append.run_id] += 1
            self.chunks.append((append.run_id, self.counts[append.run_id], *key[1:], known.size, fresh))
        ends_here = append.final and append.offset + len(append.data) == size
        if fresh or ends_here:
            self.grown[key] = LogSize(size, known.final or ends_here)
        return size


def _lock_runs(tx: Transaction, appends: Sequence[LogAppend]) -> dict[str, int]:
    run_ids = sorted({append.run_id for append in appends})
    tx.execute_many((_FIRST_OF_RUN, [(run_id, 0) for run_id in run_ids]))
    return dict(tx.fetch(_LOCK_RUNS, as_json(run_ids)))


def _chunks(run_id: str, node_id: str | None, after: LogPosition | None) -> Select[Any, Any, Any, Any, Any]:
    chunks = tables.log_chunks.c
    query = select(chunks.arrival, chunks.node_id, chunks.attempt, chunks.start, chunks.data)
    query = query.where(chunks.run_id == run_id).order_by(chunks.arrival)
    if node_id is not None:
        query = query.where(chunks.node_id == node_id)
    if after is not None:
        used_up = and_(chunks.arrival == after.arrival, func.length(chunks.data) <= after.used)
        query = query.where(chunks.arrival >= after.arrival, not_(used_up))
    return query


def _unread(row: Any, after: LogPosition | None) -> LogChunk:
    arrival, node_id, attempt, start, data = row
    skipped = after.used if after is not None and after.arrival == arrival else 0
    return LogChunk(arrival, skipped, node_id, attempt, start + skipped, data[skipped:])
