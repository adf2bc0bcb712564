"""Sessions of agents: which process speaks for an agent, and until when it is believed to be alive."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from towline_controlplane.errors import IdentityInUse, SessionReplaced
from towline_controlplane.model import AgentRecord, Attempt, Lease
from towline_controlplane.store import agents, leases, rotation
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.leases import OpenLease
from towline_controlplane.tokens import fingerprint, new_agent_credential

_REISSUE_US: Final = 60_000_000
"""A credential that is not used for so long was lost on its way, and another one is given."""
_CLOCKS_DIFFER_US: Final = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Sessions:
    """One renewal per agent covers all its leases; `lease_seconds` long, by the database's clock."""

    database: Database
    lease_seconds: float

    @property
    def interval_seconds(self) -> float:
        """How often an agent renews: several times within a lease, and often enough that a cancel arrives soon."""
        return min(self.lease_seconds / 6, 2.0)

    async def open(self, agent: AgentRecord, session_id: str, info: SessionInfo, kept: Collection[Lease] = ()) -> None:
        """Makes the session the agent's only one; raises IdentityInUse while a later one may be alive.

        What the agent has `kept` from earlier sessions, as results that nobody has taken yet, goes over to this one.

        The ids of sessions rise, so that a message of a process that is gone, late or repeated, does not take the
        agent from the one that followed it.
        """

        def work(tx: Transaction) -> IdentityInUse | None:
            if agents.open_session(tx, agent.id, session_id, info, self._expire_time(tx)):
                leases.adopt_many_if_leased(tx, agent.id, session_id, kept)
                return None
            return self._in_use(agents.get_agent(tx, agent.id) or agent, tx.now)

        refusal = await self.database.write(work)
        if refusal is not None:
            raise refusal

    async def renew(self, agent: AgentRecord, session_id: str) -> None:
        """Renews the session with all its leases; raises SessionReplaced if another has been opened meanwhile."""
        if not await self.database.write(
            lambda tx: agents.renew_if_session(tx, agent.id, session_id, self._expire_time(tx))
        ):
            raise SessionReplaced("another process runs with this agent's credential")

    async def open_leases(self, agent_id: str) -> tuple[int, list[OpenLease]]:
        """Returns the time (µs) and what the agent holds then."""
        return await self.database.read(lambda tx: (tx.now, leases.open_leases(tx, agent_id)))

    def is_forgotten(self, attempt: Attempt, now: int) -> bool:
        """Tells whether an agent that does not name the attempt has lost sight of it.

        For the first lease of an attempt the message may simply be older than its start.
        """
        began = attempt.start_time
        return began is not None and began + int(self.lease_seconds * 1_000_000) < now

    async def next_credential(self, agent: AgentRecord) -> str:
        """Returns a new credential for an agent that is due to get one; empty if it is not.

        Whether it is due the database decides; a look at the clock of this process only saves the question.
        """
        if not 0 < agent.rotation_time <= time.time() * 1_000_000 + _CLOCKS_DIFFER_US:
            return ""
        credential = new_agent_credential()
        hashed = fingerprint(credential)
        issued = await self.database.write(lambda tx: rotation.issue_if_due(tx, agent.id, hashed, _REISSUE_US))
        return credential if issued else ""

    def _expire_time(self, tx: Transaction) -> int:
        return tx.now + int(self.lease_seconds * 1_000_000)

    def _in_use(self, holder: AgentRecord, now: int) -> IdentityInUse:
        left = (holder.lease_expire_time - now) / 1_000_000
        return IdentityInUse(holder.hostname, min(max(left, 0.0), self.lease_seconds))
