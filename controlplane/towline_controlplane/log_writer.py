"""Appends the log bytes of attempts, by group commit: what arrives while a transaction is in flight shares the next.

Bytes count only for the holder of the attempt that its lease names (I2); an attempt that was lost takes no more, one
that ended by its own report still takes the rest of its log.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from towline_controlplane.bus import Doorbell, logs_topic
from towline_controlplane.group_commit import Backlog, commit_together
from towline_controlplane.model import Attempt, AttemptState, Lease
from towline_controlplane.store import logs, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.logs import LogAppend

_MAX_BATCH = 64


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of one attempt's log from `offset` on; `final` when nothing follows."""

    lease: Lease
    offset: int
    data: bytes
    final: bool


@dataclass(slots=True)
class LogWriter:
    """Takes chunks from agents; `run` commits them."""

    database: Database
    doorbell: Doorbell
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _chunks: Backlog[LogChunk] = field(init=False)

    def __post_init__(self) -> None:
        self._chunks = Backlog(self._wake)

    async def append(self, chunk: LogChunk) -> int | None:
        """Returns the next wanted offset once the bytes are durable, None if the lease is stale."""
        return await self._chunks.add(chunk)

    async def run(self) -> None:
        """Commits until it is cancelled."""
        while True:
            await self._wake.wait()
            batch = self._chunks.take(_MAX_BATCH)
            if not self._chunks:
                self._wake.clear()
            for run_ids in await commit_together(self.database, batch, _append):
                self.doorbell.ring({logs_topic(run_id) for run_id in run_ids})


def _append(tx: Transaction, chunks: Sequence[LogChunk]) -> tuple[list[int | None], set[str]]:
    keys = {(chunk.lease.run_id, chunk.lease.node_id) for chunk in chunks}
    attempts = {
        (attempt.run_id, attempt.node_id, attempt.number): attempt
        for run_id, node_id in sorted(keys)
        for attempt in runs.list_attempts(tx, run_id, node_id)
    }
    offsets: list[int | None] = []
    for chunk in chunks:
        lease = chunk.lease
        if not _may_append(attempts.get((lease.run_id, lease.node_id, lease.attempt)), lease):
            offsets.append(None)
            continue
        append = LogAppend(lease.run_id, lease.node_id, lease.attempt, chunk.offset, chunk.data, chunk.final)
        offsets.extend(logs.append_many(tx, [append]))
    return offsets, {run_id for run_id, _ in keys}


def _may_append(attempt: Attempt | None, lease: Lease) -> bool:
    if attempt is None or attempt.state is AttemptState.LOST:
        return False
    held_by = (attempt.epoch, attempt.token_hash, attempt.agent_id)
    return held_by == (lease.epoch, lease.token_hash, lease.agent_id)
