"""Lets runs go that wait for a slot of their concurrency limit, as soon as one is free."""

from dataclasses import dataclass, field

from towline_controlplane.loops.alarm import LONGEST_WAIT_SECONDS, Alarm
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.store import concurrency
from towline_controlplane.store.concurrency import WaitingRun
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.submissions import AdmitRun

_AT_ONCE = 64


@dataclass(slots=True)
class Admission:
    """Gives out free slots; its alarm is for when one may have become free, or a run has begun to wait."""

    database: Database
    orchestrator: Orchestrator
    alarm: Alarm = field(default_factory=Alarm)

    async def tick(self) -> int:
        """Admits what the free slots allow; returns how many runs."""
        waiting = await self.database.read(_look)
        return await self.orchestrator.settle([AdmitRun(run.run_id) for run in waiting])

    async def run(self) -> None:
        """Ticks when it is woken, at the latest every second, until it is cancelled."""
        await self.alarm.run(self._admit)

    async def _admit(self) -> float:
        """Those that were admitted may leave slots to others: it looks again until there are none."""
        return 0.0 if await self.tick() else LONGEST_WAIT_SECONDS


def _look(tx: Transaction) -> list[WaitingRun]:
    groups = concurrency.waiting_groups(tx)
    return [run for group in groups for run in concurrency.next_to_admit(tx, group, _AT_ONCE)]
