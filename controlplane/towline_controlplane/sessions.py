"""Sessions of agents: which process speaks for an agent, and until when it is believed to be alive."""

from dataclasses import dataclass

from towline_controlplane.errors import SessionReplaced, Unavailable
from towline_controlplane.model import AgentRecord
from towline_controlplane.store import agents, leases
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.leases import OpenLease


@dataclass(frozen=True, slots=True)
class Sessions:
    """One renewal per agent covers all its leases; `lease_seconds` long, by the database's clock."""

    database: Database
    lease_seconds: float

    @property
    def interval_seconds(self) -> float:
        """How often an agent renews: several times within a lease, and often enough that a cancel arrives soon."""
        return min(self.lease_seconds / 6, 2.0)

    async def open(self, agent: AgentRecord, session_id: str, info: SessionInfo) -> None:
        """Makes the session the agent's only one; raises Unavailable while a later one may be alive.

        The ids of sessions rise, so that a message of a process that is gone, late or repeated, does not take the
        agent from the one that followed it.
        """
        if not await self.database.write(
            lambda tx: agents.open_session(tx, agent.id, session_id, info, self._expire_time(tx))
        ):
            raise Unavailable("a later session of this agent is open, whose lease is not over")

    async def renew(self, agent: AgentRecord, session_id: str) -> None:
        """Renews the session with all its leases; raises SessionReplaced if another has been opened meanwhile."""
        if not await self.database.write(
            lambda tx: agents.renew_if_session(tx, agent.id, session_id, self._expire_time(tx))
        ):
            raise SessionReplaced("another process runs with this agent's credential")

    async def open_leases(self, agent_id: str) -> list[OpenLease]:
        """Returns what the agent holds."""
        return await self.database.read(lambda tx: leases.open_leases(tx, agent_id))

    def _expire_time(self, tx: Transaction) -> int:
        return tx.now + int(self.lease_seconds * 1_000_000)
