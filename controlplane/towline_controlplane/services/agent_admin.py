"""AgentAdminService: agents as an admin sees them, and the tokens that machines enroll with."""

from dataclasses import dataclass
from typing import Final

from towline.v1 import agent_admin_service_pb2 as pb
from towline.v1.agent_pb2 import Agent
from towline_controlplane import tokens
from towline_controlplane.bus import Doorbell, agent_topic
from towline_controlplane.errors import InvalidArgument
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context
from towline_controlplane.services.checks import found
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.store import agents
from towline_controlplane.store.database import Database, Transaction

MAX_USES: Final = 10_000
DEFAULT_LIFETIME_SECONDS: Final = 3_600
MAX_LIFETIME_SECONDS: Final = 30 * 24 * 3_600
_LIMITS: Final = PageLimits()
_QUERY: Final = "ListAgents"


@dataclass(frozen=True, slots=True)
class AgentAdminService:
    """Implements `towline.v1.AgentAdminService`."""

    database: Database
    doorbell: Doorbell

    async def ListAgents(self, request: pb.ListAgentsRequest, _context: Context) -> pb.ListAgentsResponse:
        """Lists agents by name."""
        size = page_size(request.page_size, _LIMITS)
        after = decode_token(request.page_token, (str,), _QUERY)

        def read(tx: Transaction) -> pb.ListAgentsResponse:
            page = gather(
                lambda key, limit: agents.list_agents(tx, str(key[0]) if key else "", limit),
                lambda row: (row.agent.name,),
                after,
                size,
            )
            return pb.ListAgentsResponse(
                agents=[convert.agent(row, online=row.agent.lease_expire_time > tx.now) for row in page.rows],
                next_page_token=encode_token(page.next_key, _QUERY),
            )

        return await self.database.read(read)

    async def GetAgent(self, request: pb.GetAgentRequest, _context: Context) -> pb.GetAgentResponse:
        """Returns an agent, by id or name."""
        return pb.GetAgentResponse(agent=await self.database.read(lambda tx: _agent(tx, request.agent_id)))

    async def DrainAgent(self, request: pb.DrainAgentRequest, _context: Context) -> pb.DrainAgentResponse:
        """Offers an agent nothing any more."""
        return pb.DrainAgentResponse(agent=await self._set_drained(request.agent_id, drained=True))

    async def UndrainAgent(self, request: pb.UndrainAgentRequest, _context: Context) -> pb.UndrainAgentResponse:
        """Offers steps to an agent again."""
        return pb.UndrainAgentResponse(agent=await self._set_drained(request.agent_id, drained=False))

    async def CreateEnrollmentToken(
        self, request: pb.CreateEnrollmentTokenRequest, _context: Context
    ) -> pb.CreateEnrollmentTokenResponse:
        """Makes a token with which machines become agents; it is shown only in this answer."""
        if not 0 <= request.uses <= MAX_USES:
            raise InvalidArgument.of("uses", f"must be 0 (meaning 1) to {MAX_USES:,}")
        lifetime = request.lifetime.seconds if request.HasField("lifetime") else DEFAULT_LIFETIME_SECONDS
        if not 1 <= lifetime <= MAX_LIFETIME_SECONDS:
            raise InvalidArgument.of("lifetime", "must be one second to 30 days")
        token = tokens.new_enrollment_token()

        def insert(tx: Transaction) -> int:
            expires = tx.now + lifetime * 1_000_000
            agents.insert_enrollment_token(tx, tokens.fingerprint(token), request.uses or 1, expires)
            return expires

        expires = await self.database.write(insert)
        return pb.CreateEnrollmentTokenResponse(token=token, expire_time=convert.timestamp(expires))

    async def _set_drained(self, id_or_name: str, *, drained: bool) -> Agent:
        def change(tx: Transaction) -> Agent:
            listed = found(agents.find_agent(tx, id_or_name), "agent", id_or_name)
            agents.set_drained(tx, listed.agent.id, drained=drained)
            return _agent(tx, listed.agent.id)

        agent = await self.database.write(change)
        self.doorbell.ring([agent_topic(agent.id)])
        return agent


def _agent(tx: Transaction, id_or_name: str) -> Agent:
    listed = found(agents.find_agent(tx, id_or_name), "agent", id_or_name)
    return convert.agent(listed, online=listed.agent.lease_expire_time > tx.now)
