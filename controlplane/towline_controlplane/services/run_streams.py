"""What happens in a run, as it happens: its history and its log lines, each once and in order (I15).

A stream listens before it first looks, so that nothing falls between; a lost ring costs one poll interval. Cursors
name a place in the store, so a reader goes on where it stopped on any control plane.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, cast

from towline.v1 import run_service_pb2 as pb
from towline_controlplane.bus import Doorbell, logs_topic, run_topic
from towline_controlplane.engine.transitions import RUN_TERMINAL
from towline_controlplane.errors import InvalidArgument
from towline_controlplane.model import Attempt, Event, Run
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context, visible_owner
from towline_controlplane.services.checks import found
from towline_controlplane.services.log_records import records
from towline_controlplane.services.pages import decode_token, encode_token
from towline_controlplane.store import logs, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.logs import LogChunk, LogPosition, LogSize

_EVENTS: Final = 500
_LOG_BYTES: Final = 256 * 1024
_STEPS_ASKED_FOR_FINAL: Final = 200


@dataclass(frozen=True, slots=True)
class LogRead:
    """What one look at the logs found. `ended`: the run has; `complete`: so have its logs."""

    chunks: list[LogChunk]
    ended: bool = False
    complete: bool = False


@dataclass(frozen=True, slots=True)
class RunStreams:
    """Follows runs; `log_grace_seconds` is how long logs may arrive after the end of their run."""

    database: Database
    doorbell: Doorbell
    poll_seconds: float = 5.0
    log_grace_seconds: float = 2.0

    async def watch(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        """Streams events from behind the cursor up to the one that ends the run."""
        query = ("WatchRun", request.run_id)
        owner_id = visible_owner()
        cursor = decode_token(request.cursor, (int,), *query, field="cursor")
        sequence = int(cursor[0]) if cursor else 0
        async with self.doorbell.listen([run_topic(request.run_id)]) as bell:
            run, events = await self._read_events(request.run_id, owner_id, sequence)
            if not 0 <= sequence <= run.event_count:
                raise InvalidArgument.of("cursor", "is not one that was given out for this query")
            await context.send_initial_metadata(())
            while True:
                for event in events:
                    sequence = event.sequence
                    yield pb.WatchRunResponse(event=convert.event(event), cursor=encode_token((sequence,), *query))
                if sequence >= run.event_count:
                    if run.state in RUN_TERMINAL:
                        return
                    await bell.wait(self.poll_seconds)
                run, events = await self._read_events(request.run_id, owner_id, sequence)

    async def tail(self, request: pb.TailLogsRequest, context: Context) -> AsyncIterator[pb.TailLogsResponse]:
        """Streams log lines from behind the cursor; with `follow` until the run has ended and its logs are in."""
        query = ("TailLogs", request.run_id, request.node_id)
        cursor = decode_token(request.cursor, (int, int), *query, field="cursor")
        position = LogPosition(*cast("tuple[int, int]", cursor)) if cursor else None
        await self._check_visible(request.run_id, request.node_id)
        await context.send_initial_metadata(())
        async with self.doorbell.listen([logs_topic(request.run_id), run_topic(request.run_id)]) as bell:
            while True:
                look = await self._read_logs(request.run_id, request.node_id or None, position)
                for chunk in look.chunks:
                    for record in records(chunk.data):
                        position = chunk.position(record.end)
                        yield pb.TailLogsResponse(
                            line=convert.log_line(chunk.node_id, chunk.attempt, record),
                            cursor=encode_token((position.arrival, position.used), *query),
                        )
                if not look.chunks:
                    if look.complete or not request.follow:
                        return
                    await bell.wait(self.log_grace_seconds if look.ended else self.poll_seconds)

    async def _read_events(self, run_id: str, owner_id: str | None, sequence: int) -> tuple[Run, list[Event]]:
        def read(tx: Transaction) -> tuple[Run, list[Event]]:
            run = found(runs.get_run(tx, run_id, owner_id), "run", run_id)
            return run, runs.list_events(tx, run_id, sequence, _EVENTS)

        return await self.database.read(read)

    async def _check_visible(self, run_id: str, node_id: str) -> None:
        owner_id = visible_owner()

        def read(tx: Transaction) -> None:
            found(runs.get_run(tx, run_id, owner_id), "run", run_id)
            if node_id:
                found(runs.get_step(tx, run_id, node_id), "step", node_id)

        await self.database.read(read)

    async def _read_logs(self, run_id: str, node_id: str | None, position: LogPosition | None) -> LogRead:
        def read(tx: Transaction) -> LogRead:
            # First: of a run that is being deleted some chunks may be there, and others not.
            run = found(runs.get_run(tx, run_id, None), "run", run_id)
            chunks = logs.read_chunks(tx, run_id, node_id, position, _LOG_BYTES)
            if chunks or run.end_time is None:
                return LogRead(chunks)
            return LogRead([], ended=True, complete=self._logs_complete(tx, run_id, run.end_time))

        return await self.database.read(read)

    def _logs_complete(self, tx: Transaction, run_id: str, end_time: int) -> bool:
        if tx.now >= end_time + int(self.log_grace_seconds * 1_000_000):
            return True
        steps = runs.list_steps(tx, run_id, -1, _STEPS_ASKED_FOR_FINAL + 1)
        if len(steps) > _STEPS_ASKED_FOR_FINAL:
            return False
        keys = [(run_id, step.node_id) for step in steps if step.attempt]
        sizes = logs.load_sizes(tx, keys)
        return all(
            _log_complete(attempt, sizes.get((run_id, attempt.node_id, attempt.number)))
            for attempt in runs.load_all_attempts(tx, keys)
        )


def _log_complete(attempt: Attempt, stored: LogSize | None) -> bool:
    """Tells whether an attempt that has ended will get no more lines: one that was never reported takes none."""
    if attempt.report_digest is None or attempt.usage.log_bytes == 0:
        return True
    return stored is not None and (stored.final or stored.size >= attempt.usage.log_bytes)
