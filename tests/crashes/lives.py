"""Control planes that live one after the other, or beside each other, on one database."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from faults import Exit, Faults, FaultyBackend
from rig import FakeClock, Rig
from schedule_samples import StoredStarts

from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.log_writer import LogWriter
from towline_controlplane.loops.admission import Admission
from towline_controlplane.loops.deadlines import Deadlines
from towline_controlplane.loops.lease_expiry import LeaseExpiry
from towline_controlplane.loops.offer_expiry import OfferExpiry
from towline_controlplane.loops.scheduling import Scheduling
from towline_controlplane.model import WorkflowVersion
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.store.database import Database
from towline_controlplane.store.postgres import PostgresBackend
from towline_controlplane.store.sqlite import SqliteBackend

# Versions never change; what a replica reads of them is not what is tested here.
VERSIONS: dict[str, WorkflowVersion] = {}


class Life:
    """A control plane from its start to its end, without its server; its duties tick when they are called for."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        doorbell = InProcessDoorbell()
        orchestrator = Orchestrator(database, doorbell, jitter=lambda: 0.5)
        self.rig = Rig(database, doorbell, orchestrator, clock)
        self.logs = LogWriter(database, doorbell, orchestrator.confirm)
        self.ticks: Mapping[str, Callable[[], Awaitable[object]]] = {
            "offers": OfferExpiry(database, orchestrator, 0).tick,
            "leases": LeaseExpiry(database, orchestrator, 3600).tick,
            "deadlines": Deadlines(database, orchestrator).tick,
            "admission": Admission(database, orchestrator).tick,
            "schedules": Scheduling(database, orchestrator, StoredStarts(database, VERSIONS)).tick,
        }

    async def survives(self, work: Awaitable[None]) -> bool:
        """Does the work while the control plane commits; returns False if its process ended before it was done."""
        working = asyncio.ensure_future(work)
        committing = [asyncio.create_task(self.rig.orchestrator.run()), asyncio.create_task(self.logs.run())]
        await asyncio.wait([working, *committing], return_when=asyncio.FIRST_COMPLETED)
        for task in (working, *committing):
            task.cancel()
        ends = await asyncio.gather(working, *committing, return_exceptions=True)
        for end in ends:
            if end is not None and not isinstance(end, Exit | asyncio.CancelledError):
                raise end
        return not any(isinstance(end, Exit) for end in ends)


class Stage:
    """A database, its clock, and the control planes that come and go on it, one at a time."""

    def __init__(self, url: str, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        scheme, _, path = url.partition("://")
        inner = SqliteBackend(Path(path), self.clock) if scheme == "sqlite" else PostgresBackend(url, self.clock)
        self.backend = FaultyBackend(inner)
        self.database = Database(self.backend, readers=1)

    def life(self, faults: Faults | None = None) -> Life:
        """Returns a new control plane, with faults in what it writes; the one before must be over."""
        self.backend.start_process(faults or Faults())
        return Life(self.database, self.clock)
