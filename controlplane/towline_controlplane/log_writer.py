"""Appends the log bytes of attempts, by group commit: what arrives while a transaction is in flight shares the next.

Bytes count only for the holder of the attempt that its lease names (I2); an attempt that was lost takes no more, one
that ended by its own report still takes the rest of its log. Bytes of an offer confirm its start first: one that goes
back is handed out under the same number, and the log of its next holder begins anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from towline_controlplane.bus import Doorbell, logs_topic
from towline_controlplane.group_commit import Backlog, commit_together
from towline_controlplane.model import Attempt, AttemptState, Lease
from towline_controlplane.store import logs, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.logs import LogAppend

_MAX_BATCH = 64
_MOST_LEASES = 10_000
_GATHER_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of one attempt's log from `offset` on; `final` when nothing follows."""

    lease: Lease
    offset: int
    data: bytes
    final: bool


@dataclass(slots=True)
class _Entrance:
    """Where the chunks of a lease pass one by one, in the order in which they came."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    confirmed: bool = False


@dataclass(slots=True)
class LogWriter:
    """Takes chunks from agents; `run` commits them. `confirm` records the start of attempts, unless they are stale."""

    database: Database
    doorbell: Doorbell
    confirm: Callable[[Iterable[Lease]], Awaitable[None]]
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _chunks: Backlog[LogChunk] = field(init=False)
    _entrances: dict[Lease, _Entrance] = field(default_factory=dict[Lease, _Entrance])

    def __post_init__(self) -> None:
        self._chunks = Backlog(self._wake)

    async def append(self, chunk: LogChunk) -> int | None:
        """Returns the next wanted offset once the bytes are durable, None if the lease is stale."""
        entrance = self._entrance(chunk.lease)
        async with entrance.lock:
            if not entrance.confirmed:
                await self.confirm([chunk.lease])
                entrance.confirmed = True
            offset = self._chunks.add(chunk)
        return await offset

    @property
    def interval_seconds(self) -> float:
        """How long agents should gather bytes: not at all, unless more chunks wait than one commit takes."""
        return _GATHER_SECONDS if len(self._chunks) > _MAX_BATCH else 0.0

    async def run(self) -> None:
        """Commits until it is cancelled."""
        while True:
            await self._wake.wait()
            batch = self._chunks.take(_MAX_BATCH)
            if not self._chunks:
                self._wake.clear()
            for run_ids in await commit_together(self.database, batch, _append):
                self.doorbell.ring(map(logs_topic, run_ids))

    def _entrance(self, lease: Lease) -> _Entrance:
        if len(self._entrances) >= _MOST_LEASES and lease not in self._entrances:
            del self._entrances[next(iter(self._entrances))]
        return self._entrances.setdefault(lease, _Entrance())


def _append(tx: Transaction, chunks: Sequence[LogChunk]) -> tuple[list[int | None], set[str]]:
    keys = {(chunk.lease.run_id, chunk.lease.node_id) for chunk in chunks}
    attempts = {(a.run_id, a.node_id, a.number): a for a in runs.load_all_attempts(tx, keys)}
    taken = [_is_held(attempts.get((c.lease.run_id, c.lease.node_id, c.lease.attempt)), c.lease) for c in chunks]
    appends = [
        LogAppend(c.lease.run_id, c.lease.node_id, c.lease.attempt, c.offset, c.data, c.final)
        for c, is_taken in zip(chunks, taken, strict=True)
        if is_taken
    ]
    offsets = iter(logs.append_many(tx, appends))
    return [next(offsets) if is_taken else None for is_taken in taken], {append.run_id for append in appends}


def _is_held(attempt: Attempt | None, lease: Lease) -> bool:
    if attempt is None or attempt.state is AttemptState.OFFERED or _was_withdrawn(attempt):
        return False
    held_by = (attempt.epoch, attempt.token_hash, attempt.agent_id)
    return held_by == (lease.epoch, lease.token_hash, lease.agent_id)


def _was_withdrawn(attempt: Attempt) -> bool:
    return attempt.state is AttemptState.LOST and attempt.report_digest is None
