"""Takes back offers that no agent confirmed in time: a poll answer that was lost must not lock a step.

A control plane that was down itself, or could not reach its database, may have missed the confirmation; it lets the
agents find it again first.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.store import leases
from towline_controlplane.store.database import Database
from towline_controlplane.submissions import ExpireOffer

_BATCH = 256


@dataclass(slots=True)
class OfferExpiry:
    """Finds offers past their time by the database's clock; the step goes back without costing a retry.

    Nothing expires before this process has reached its database for `patience_seconds` of its own time.
    """

    database: Database
    orchestrator: Orchestrator
    patience_seconds: float
    monotonic: Callable[[], float] = time.monotonic
    _reachable_since: float = field(init=False)

    def __post_init__(self) -> None:
        self._reachable_since = self.monotonic()

    async def tick(self) -> int:
        """Takes back up to a batch of expired offers; returns how many."""
        try:
            expired = await self.database.read(lambda tx: leases.expired_offers(tx, _BATCH))
        except Exception:
            self._reachable_since = self.monotonic()
            raise
        if self.monotonic() - self._reachable_since < self.patience_seconds:
            return 0
        return await self.orchestrator.settle(ExpireOffer(run_id, node_id) for run_id, node_id in expired)
