"""Appends the log bytes of attempts, by group commit: what arrives while a transaction is in flight shares the next.

Bytes count only for the holder of the attempt that its lease names (I2); an attempt that was lost takes no more, one
that ended by its own report still takes the rest of its log.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from towline_controlplane.bus import Doorbell, logs_topic
from towline_controlplane.model import Attempt, AttemptState, Lease
from towline_controlplane.store import logs, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.logs import LogAppend

_MAX_BATCH = 64

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of one attempt's log from `offset` on; `final` when nothing follows."""

    lease: Lease
    offset: int
    data: bytes
    final: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    chunk: LogChunk
    answer: asyncio.Future[int | None]


@dataclass(slots=True)
class LogWriter:
    """Takes chunks from agents; `run` commits them."""

    database: Database
    doorbell: Doorbell
    _waiting: list[_Waiting] = field(default_factory=list[_Waiting])
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def append(self, chunk: LogChunk) -> int | None:
        """Returns the next wanted offset once the bytes are durable, None if the lease is stale."""
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(chunk, answer))
        self._wake.set()
        return await answer

    async def run(self) -> None:
        """Commits until it is cancelled."""
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            if not self._waiting:
                self._wake.clear()
            await self._commit(batch)

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            offsets = await self.database.write(lambda tx: _append(tx, [waiting.chunk for waiting in batch]))
        except Exception as error:
            if len(batch) > 1:
                for waiting in batch:
                    await self._commit([waiting])
                return
            log.exception("log chunk failed", run_id=batch[0].chunk.lease.run_id)
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        self.doorbell.ring({logs_topic(waiting.chunk.lease.run_id) for waiting in batch})
        for waiting, offset in zip(batch, offsets, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(offset)


def _append(tx: Transaction, chunks: Sequence[LogChunk]) -> list[int | None]:
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
    return offsets


def _may_append(attempt: Attempt | None, lease: Lease) -> bool:
    if attempt is None or attempt.state is AttemptState.LOST:
        return False
    held_by = (attempt.epoch, attempt.token_hash, attempt.agent_id)
    return held_by == (lease.epoch, lease.token_hash, lease.agent_id)
