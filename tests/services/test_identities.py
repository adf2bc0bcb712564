"""One credential is one agent: which process has its place while another one on some host comes with it too."""

import asyncio
from dataclasses import replace

import pytest

from towline_controlplane.errors import IdentityInUse, SessionReplaced
from towline_controlplane.model import AgentRecord
from towline_controlplane.sessions import Sessions
from towline_controlplane.store import agents
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Database

LEASE_SECONDS = 30.0
AGENT = AgentRecord("agent-1", "builder", "c" * 64, create_time=0)
FIRST, SECOND, THIRD = SessionInfo(1, {}, hostname="first"), SessionInfo(1, {}, hostname="second"), "session-3"


class Clock:
    """The clock of the database, in microseconds."""

    now = 1_000_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


def test_a_second_host_comes_in_only_once_the_lease_of_the_first_is_over(database_url: str) -> None:
    clock = Clock()

    async def scenario() -> None:
        database = Database.open(database_url, clock=clock)
        try:
            await database.write(lambda tx: agents.insert_agent(tx, AGENT))
            sessions = Sessions(database, LEASE_SECONDS)
            await sessions.open(AGENT, "session-1", FIRST)

            # Refused, however often it asks; it is told who is there and for how long.
            clock.advance(10)
            for _ in range(2):
                with pytest.raises(IdentityInUse, match="'first'") as refused:
                    await sessions.open(AGENT, "session-2", SECOND)
                assert (refused.value.reason, refused.value.retry_seconds) == ("IDENTITY_IN_USE", LEASE_SECONDS - 10)
            assert (await record(database)).session_id == "session-1"

            # The first one has noticed nothing; what it renews keeps the other out for a whole lease again.
            await sessions.renew(AGENT, "session-1")
            clock.advance(LEASE_SECONDS - 0.001)
            with pytest.raises(IdentityInUse):
                await sessions.open(AGENT, "session-2", SECOND)

            # Gone: the second has the place, and the first is the one that is refused.
            clock.advance(0.001)
            await sessions.open(AGENT, "session-2", SECOND)
            with pytest.raises(SessionReplaced):
                await sessions.renew(AGENT, "session-1")
            with pytest.raises(IdentityInUse, match="'second'"):
                await sessions.open(AGENT, THIRD, FIRST)

            # A later process on the same host need not wait.
            await sessions.open(AGENT, THIRD, replace(SECOND, slots=2))
            assert (await record(database)).slots == 2
        finally:
            await database.close()

    asyncio.run(scenario())


async def record(database: Database) -> AgentRecord:
    found = await database.read(lambda tx: agents.get_agent(tx, AGENT.id))
    assert found is not None
    return found
