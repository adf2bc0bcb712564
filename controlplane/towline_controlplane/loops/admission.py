"""Lets runs go that wait for a slot of their concurrency limit, as soon as one is free."""

import asyncio
from dataclasses import dataclass, field

import structlog

from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.store import concurrency
from towline_controlplane.store.concurrency import WaitingRun
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.submissions import AdmitRun

_LONGEST_WAIT_SECONDS = 1.0
_AT_ONCE = 64

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Admission:
    """Gives out free slots; `wake` when one may have become free, or a run has begun to wait."""

    database: Database
    orchestrator: Orchestrator
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Makes it look at once."""
        self._woken.set()

    async def tick(self) -> int:
        """Admits what the free slots allow; returns how many runs."""
        waiting = await self.database.read(_look)
        return await self.orchestrator.settle([AdmitRun(run.run_id) for run in waiting])

    async def run(self) -> None:
        """Ticks when it is woken, at the latest every second, until it is cancelled."""
        while True:
            self._woken.clear()
            try:
                admitted = await self.tick()
            except Exception:
                log.exception("tick failed", duty="Admission")
                admitted = 0
            if admitted:
                continue
            try:
                async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                continue


def _look(tx: Transaction) -> list[WaitingRun]:
    groups = concurrency.waiting_groups(tx)
    return [run for group in groups for run in concurrency.next_to_admit(tx, group, _AT_ONCE)]
