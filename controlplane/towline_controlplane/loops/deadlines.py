"""Ends what took too long: runs past their deadline, and steps that no agent took in time."""

from dataclasses import dataclass

from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.store import leases, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.submissions import ExpireQueueWait, TimeOutRun

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Finds what is overdue by the database's clock; the orchestrator looks again inside the commit."""

    database: Database
    orchestrator: Orchestrator

    async def tick(self) -> int:
        """Ends up to a batch of each kind; returns how many."""
        overdue_runs, overdue_steps = await self.database.read(_look)
        return await self.orchestrator.settle(
            [
                *(TimeOutRun(run_id) for run_id in overdue_runs),
                *(ExpireQueueWait(run_id, node_id) for run_id, node_id in overdue_steps),
            ]
        )


def _look(tx: Transaction) -> tuple[list[str], list[tuple[str, str]]]:
    return runs.overdue_runs(tx, _BATCH), leases.overdue_queue_waits(tx, _BATCH)
