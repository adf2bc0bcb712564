"""Log lines of a run, as they arrive: each once, in order, across control planes, restarts and archiving (I14, I15).

A stream listens before it first looks, so that nothing falls between; a lost ring costs one poll interval. Its last
answer says whether the logs are complete, or what is missing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from towline.v1 import run_pb2
from towline.v1 import run_service_pb2 as pb
from towline_controlplane import log_reader
from towline_controlplane.bus import Doorbell, logs_topic, run_topic
from towline_controlplane.log_archive import LogArchive
from towline_controlplane.log_reader import LogLook
from towline_controlplane.log_status import LogCondition, LogStatus, log_status
from towline_controlplane.model import Attempt
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context, visible_owner
from towline_controlplane.services.checks import found
from towline_controlplane.services.log_records import records
from towline_controlplane.services.pages import decode_token, token_maker
from towline_controlplane.store import log_archives, logs, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.logs import LogChunk, LogPosition

GIVE_UP_SECONDS: Final = 600.0
"""So long after the end of an attempt the rest of its log is expected."""
_LOG_BYTES: Final = 256 * 1024
_LINES_AT_ONCE: Final = 250
_STEPS_WATCHED: Final = 200
_STEPS_AT_ONCE: Final = 500
_INCOMPLETE_NAMED: Final = 100


@dataclass(frozen=True, slots=True)
class LogStreams:
    """Reads logs; `grace_seconds` is how long a reader waits for the rest of a log after its run has ended."""

    database: Database
    doorbell: Doorbell
    archive: LogArchive
    poll_seconds: float = 5.0
    grace_seconds: float = 10.0

    async def tail(self, request: pb.TailLogsRequest, context: Context) -> AsyncIterator[pb.TailLogsResponse]:
        """Streams log lines from behind the cursor; with `follow` until the run has ended and its logs are in."""
        run_id, node_id = request.run_id, request.node_id or None
        query = ("TailLogs", run_id, request.node_id)
        cursor = decode_token(request.cursor, (int, int), *query, field="cursor")
        position = LogPosition(*cast("tuple[int, int]", cursor)) if cursor else None
        await self._check_visible(run_id, request.node_id)
        await context.send_initial_metadata(())
        tokens = token_maker(*query)
        token, patience, all_in = request.cursor, _Patience(self.grace_seconds), not request.follow
        async with self.doorbell.listen([logs_topic(run_id), run_topic(run_id)]) as bell:
            while True:
                look, is_over = await self._look(run_id, node_id, position)
                chunks = await log_reader.read(self.archive, look, _LOG_BYTES)
                for chunk in chunks:
                    position = chunk.position(len(chunk.data))
                    for batch in _batches(chunk, tokens):
                        token = batch[-1].cursor
                        yield batch[0] if len(batch) == 1 else pb.TailLogsResponse(batch=batch, cursor=token)
                if chunks:
                    patience.renew()
                elif all_in:
                    break
                elif is_over and (patience.is_over() or not await self._awaited(run_id)):
                    all_in = True  # since the last look, perhaps: there is one more
                else:
                    await bell.wait(patience.left() if is_over else self.poll_seconds)
        yield pb.TailLogsResponse(end=await self._end(run_id, node_id), cursor=token)

    async def _check_visible(self, run_id: str, node_id: str) -> None:
        owner_id = visible_owner()

        def read(tx: Transaction) -> None:
            found(runs.get_run(tx, run_id, owner_id), "run", run_id)
            if node_id:
                found(runs.get_step(tx, run_id, node_id), "step", node_id)

        await self.database.read(read)

    async def _look(self, run_id: str, node_id: str | None, position: LogPosition | None) -> tuple[LogLook, bool]:
        def read(tx: Transaction) -> tuple[LogLook, bool]:
            # First: of a run that is being deleted some chunks may be there, and others not.
            run = found(runs.get_run(tx, run_id, None), "run", run_id)
            return log_reader.look(tx, run_id, node_id, position, _LOG_BYTES), run.end_time is not None

        return await self.database.read(read)

    async def _awaited(self, run_id: str) -> bool:
        """Tells whether more may come of a run that has ended; of one with many steps that is not known."""

        def read(tx: Transaction) -> bool:
            steps = runs.list_steps(tx, run_id, -1, _STEPS_WATCHED + 1)
            if len(steps) > _STEPS_WATCHED:
                return True
            attempts = runs.load_all_attempts(tx, [(run_id, step.node_id) for step in steps if step.attempt])
            expected = (LogCondition.GROWING, LogCondition.ARRIVING)
            return any(status.condition in expected for status in statuses(tx, run_id, attempts))

        return await self.database.read(read)

    async def _end(self, run_id: str, node_id: str | None) -> run_pb2.LogsEnd:
        end, position = run_pb2.LogsEnd(complete=True), -1
        while True:
            listed = await self.database.read(
                lambda tx, position=position: _attempts(tx, run_id, node_id, position, _STEPS_AT_ONCE)
            )
            for attempt, status in listed.found:
                end.attempts += 1
                end.stored_bytes += status.stored_bytes
                if status.condition is not LogCondition.COMPLETE:
                    end.complete = False
                    if len(end.incomplete) < _INCOMPLETE_NAMED:
                        end.incomplete.append(convert.attempt_log(attempt, status))
            if listed.last is None:
                return end
            position = listed.last


def _batches(chunk: LogChunk, tokens: Callable[[tuple[int, int]], str]) -> Iterator[list[pb.TailLogsResponse]]:
    """Yields the lines of a chunk, each with the cursor behind it, so many at a time that others get their turn."""
    batch: list[pb.TailLogsResponse] = []
    for record in records(chunk.data):
        position = chunk.position(record.end)
        token = tokens((position.arrival, position.used))
        batch.append(pb.TailLogsResponse(line=convert.log_line(chunk.node_id, chunk.attempt, record), cursor=token))
        if len(batch) == _LINES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


class _Patience:
    """How long a reader still waits; begins anew with whatever comes."""

    def __init__(self, seconds: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._seconds = seconds
        self._ends_at: float | None = None

    def renew(self) -> None:
        self._ends_at = None

    def left(self) -> float:
        if self._ends_at is None:
            self._ends_at = self._clock() + self._seconds
        return max(self._ends_at - self._clock(), 0.0)

    def is_over(self) -> bool:
        return self.left() <= 0


@dataclass(frozen=True, slots=True)
class _Attempts:
    found: list[tuple[Attempt, LogStatus]]
    last: int | None
    """Position of the last step, if there are more."""


def _attempts(tx: Transaction, run_id: str, node_id: str | None, after: int, most: int) -> _Attempts:
    if node_id is not None:
        keys, last = [(run_id, node_id)], None
    else:
        steps = runs.list_steps(tx, run_id, after, most)
        keys = [(run_id, step.node_id) for step in steps if step.attempt]
        last = steps[-1].position if len(steps) == most else None
    attempts = list(runs.load_all_attempts(tx, keys)) if keys else []
    return _Attempts(list(zip(attempts, statuses(tx, run_id, attempts), strict=True)), last)


def statuses(tx: Transaction, run_id: str, attempts: Sequence[Attempt]) -> list[LogStatus]:
    """Returns what is there of the logs of attempts of a run."""
    node_ids = sorted({attempt.node_id for attempt in attempts})
    sizes = logs.load_sizes(tx, [(run_id, node_id) for node_id in node_ids])
    archives = log_archives.load_archives(tx, run_id, node_ids)
    given_up_before = tx.now - int(GIVE_UP_SECONDS * 1_000_000)
    keys = [(run_id, attempt.node_id, attempt.number) for attempt in attempts]
    return [
        log_status(attempt, sizes.get(key), archives.get(key), given_up_before)
        for attempt, key in zip(attempts, keys, strict=True)
    ]
