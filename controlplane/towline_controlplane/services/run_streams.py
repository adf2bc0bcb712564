"""What happens in a run, as it happens: its history, each event once and in order (I15).

A stream listens before it first looks, so that nothing falls between; a lost ring costs one poll interval. Cursors
name a place in the store, so a reader goes on where it stopped on any control plane.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from towline.v1 import run_service_pb2 as pb
from towline_controlplane.bus import Doorbell, run_topic
from towline_controlplane.engine.transitions import RUN_TERMINAL
from towline_controlplane.errors import InvalidArgument
from towline_controlplane.model import Event, Run
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context, visible_owner
from towline_controlplane.services.checks import found
from towline_controlplane.services.pages import decode_token, encode_token
from towline_controlplane.store import runs
from towline_controlplane.store.database import Database, Transaction

_EVENTS: Final = 500


@dataclass(frozen=True, slots=True)
class RunStreams:
    """Follows runs."""

    database: Database
    doorbell: Doorbell
    poll_seconds: float = 5.0

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

    async def _read_events(self, run_id: str, owner_id: str | None, sequence: int) -> tuple[Run, list[Event]]:
        def read(tx: Transaction) -> tuple[Run, list[Event]]:
            run = found(runs.get_run(tx, run_id, owner_id), "run", run_id)
            return run, runs.list_events(tx, run_id, sequence, _EVENTS)

        return await self.database.read(read)
