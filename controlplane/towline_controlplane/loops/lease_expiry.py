"""Takes attempts from agents that are gone: silent for longer than their lease, or restarted under a new session.

Silence is believed only if the database says that the lease is over *and* this process has seen the same renewal
counter for a whole lease by its own monotonic clock (T3): a clock that jumps, or a control plane that was down itself,
costs at most one lease and never a mass expiry.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from towline_controlplane.model import Attempt
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.store import agents, leases
from towline_controlplane.store.agents import LeaseClock
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.submissions import Withdraw


@dataclass(frozen=True, slots=True)
class _Sighting:
    renewals: int
    since: float


@dataclass(slots=True)
class LeaseExpiry:
    """Watches the agents that hold attempts."""

    database: Database
    orchestrator: Orchestrator
    lease_seconds: float
    monotonic: Callable[[], float] = time.monotonic
    _seen: dict[str, _Sighting] = field(default_factory=dict[str, _Sighting])

    async def tick(self) -> int:
        """Withdraws the attempts of agents found gone; returns how many were still theirs."""
        now, clocks, orphans = await self.database.read(_look)
        silent = [clock.agent_id for clock in clocks if self._is_silent(clock, now)]
        self._forget_others({clock.agent_id for clock in clocks})
        held = [
            lease.attempt
            for agent_id in silent
            for lease in await self.database.read(lambda tx, agent_id=agent_id: leases.open_leases(tx, agent_id))
        ]
        return await self.orchestrator.settle(
            [withdraw(a, f"silent for more than {self.lease_seconds:g} s") for a in held]
            + [withdraw(a, "the agent restarted") for a in orphans]
        )

    async def withdraw_earlier_sessions(self, agent_id: str, session_id: str) -> int:
        """Withdraws what earlier sessions of an agent held, as soon as a new one has opened."""
        orphans = await self.database.read(lambda tx: leases.leases_of_other_sessions(tx, agent_id, session_id))
        return await self.orchestrator.settle([withdraw(a, "the agent restarted") for a in orphans])

    async def withdraw_all(self, agent_id: str, cause: str) -> int:
        """Withdraws whatever an agent holds."""
        held = await self.database.read(lambda tx: leases.open_leases(tx, agent_id))
        return await self.orchestrator.settle([withdraw(lease.attempt, cause) for lease in held])

    def _is_silent(self, clock: LeaseClock, now: int) -> bool:
        seen = self._seen.get(clock.agent_id)
        if seen is None or seen.renewals != clock.renewals:
            self._seen[clock.agent_id] = seen = _Sighting(clock.renewals, self.monotonic())
        return clock.lease_expire_time <= now and self.monotonic() - seen.since >= self.lease_seconds

    def _forget_others(self, agent_ids: set[str]) -> None:
        for agent_id in self._seen.keys() - agent_ids:
            del self._seen[agent_id]


def withdraw(attempt: Attempt, cause: str) -> Withdraw:
    """Returns the submission that takes an attempt from its holder."""
    return Withdraw(attempt.run_id, attempt.node_id, attempt.epoch, cause)


def _look(tx: Transaction) -> tuple[int, list[LeaseClock], list[Attempt]]:
    clocks = agents.lease_clocks(tx)
    orphans = [
        attempt
        for clock in clocks
        if clock.session_id is not None
        for attempt in leases.leases_of_other_sessions(tx, clock.agent_id, clock.session_id)
    ]
    return tx.now, clocks, orphans
