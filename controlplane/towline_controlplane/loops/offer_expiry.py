"""Takes back offers that no agent confirmed in time: a poll answer that was lost must not lock a step."""

from dataclasses import dataclass

from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.store import leases
from towline_controlplane.store.database import Database
from towline_controlplane.submissions import ExpireOffer

_BATCH = 256


@dataclass(frozen=True, slots=True)
class OfferExpiry:
    """Finds offers past their time by the database's clock; the step goes back without costing a retry."""

    database: Database
    orchestrator: Orchestrator

    async def tick(self) -> int:
        """Takes back up to a batch of expired offers; returns how many."""
        expired = await self.database.read(lambda tx: leases.expired_offers(tx, _BATCH))
        return await self.orchestrator.withdraw(ExpireOffer(run_id, node_id) for run_id, node_id in expired)
