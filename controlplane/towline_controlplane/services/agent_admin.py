"""AgentAdminService: agents as an admin sees them, and the tokens that machines enroll with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from towline.v1 import agent_admin_service_pb2 as pb
from towline.v1.agent_pb2 import Agent
from towline_controlplane import tokens
from towline_controlplane.bus import Doorbell, agent_topic, credentials_topic
from towline_controlplane.errors import InvalidArgument, NotFound
from towline_controlplane.loops.lease_expiry import LeaseExpiry
from towline_controlplane.services import convert
from towline_controlplane.services.agent_messages import SANDBOX_LEVELS
from towline_controlplane.services.callers import Context
from towline_controlplane.services.checks import found
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.store import agents, enrollment_tokens, rotation
from towline_controlplane.store.database import Database, Transaction

MAX_USES: Final = 10_000
DEFAULT_LIFETIME_SECONDS: Final = 3_600
MAX_LIFETIME_SECONDS: Final = 30 * 24 * 3_600
MAX_LISTED_TOKENS: Final = 500
_LIMITS: Final = PageLimits()
_QUERY: Final = "ListAgents"


@dataclass(frozen=True, slots=True)
class AgentAdminService:
    """Implements `towline.v1.AgentAdminService`."""

    database: Database
    doorbell: Doorbell
    lease_expiry: LeaseExpiry

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
        return pb.DrainAgentResponse(
            agent=await self._change(request.agent_id, partial(agents.set_drained, drained=True))
        )

    async def UndrainAgent(self, request: pb.UndrainAgentRequest, _context: Context) -> pb.UndrainAgentResponse:
        """Offers steps to an agent again."""
        return pb.UndrainAgentResponse(
            agent=await self._change(request.agent_id, partial(agents.set_drained, drained=False))
        )

    async def DisableAgent(self, request: pb.DisableAgentRequest, _context: Context) -> pb.DisableAgentResponse:
        """Refuses an agent's credential and takes from it what it holds."""
        agent = await self._change(request.agent_id, partial(agents.set_disabled, disabled=True))
        self.doorbell.ring([credentials_topic(agent.id)])
        await self.lease_expiry.withdraw_all(agent.id, "an admin disabled the agent")
        return pb.DisableAgentResponse(agent=await self.database.read(lambda tx: _agent(tx, agent.id)))

    async def EnableAgent(self, request: pb.EnableAgentRequest, _context: Context) -> pb.EnableAgentResponse:
        """Accepts the credential of a disabled agent again."""
        agent = await self._change(request.agent_id, partial(agents.set_disabled, disabled=False))
        return pb.EnableAgentResponse(agent=agent)

    async def RotateAgent(self, request: pb.RotateAgentRequest, _context: Context) -> pb.RotateAgentResponse:
        """Gives an agent a new credential with its next Sync."""
        return pb.RotateAgentResponse(agent=await self._change(request.agent_id, rotation.make_due))

    async def ListEnrollmentTokens(
        self, _request: pb.ListEnrollmentTokensRequest, _context: Context
    ) -> pb.ListEnrollmentTokensResponse:
        """Lists the tokens that may still be used."""
        usable = await self.database.read(lambda tx: enrollment_tokens.list_usable(tx, MAX_LISTED_TOKENS))
        return pb.ListEnrollmentTokensResponse(
            tokens=[
                pb.EnrollmentToken(
                    id=each.id,
                    uses_left=each.uses_left,
                    expire_time=convert.timestamp(each.expire_time),
                    create_time=convert.timestamp(each.create_time),
                )
                for each in usable
            ]
        )

    async def RevokeEnrollmentToken(
        self, request: pb.RevokeEnrollmentTokenRequest, _context: Context
    ) -> pb.RevokeEnrollmentTokenResponse:
        """Makes a token useless."""
        if not await self.database.write(lambda tx: enrollment_tokens.revoke(tx, request.token_id)):
            raise NotFound(f"there is no enrollment token {request.token_id!r} to be used")
        return pb.RevokeEnrollmentTokenResponse()

    async def CapAgent(self, request: pb.CapAgentRequest, _context: Context) -> pb.CapAgentResponse:
        """Believes an agent no stronger sandbox than it is told, or takes that back."""
        cap = partial(agents.set_sandbox_cap, level=SANDBOX_LEVELS.get(request.level))
        return pb.CapAgentResponse(agent=await self._change(request.agent_id, cap))

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
            enrollment_tokens.insert(tx, tokens.fingerprint(token), request.uses or 1, expires)
            return expires

        expires = await self.database.write(insert)
        token_id = tokens.fingerprint(token)[: enrollment_tokens.ID_LENGTH]
        return pb.CreateEnrollmentTokenResponse(token=token, expire_time=convert.timestamp(expires), id=token_id)

    async def _change(self, id_or_name: str, how: Callable[[Transaction, str], None]) -> Agent:
        def change(tx: Transaction) -> Agent:
            listed = found(agents.find_agent(tx, id_or_name), "agent", id_or_name)
            how(tx, listed.agent.id)
            return _agent(tx, listed.agent.id)

        agent = await self.database.write(change)
        self.doorbell.ring([agent_topic(agent.id)])
        return agent


def _agent(tx: Transaction, id_or_name: str) -> Agent:
    listed = found(agents.find_agent(tx, id_or_name), "agent", id_or_name)
    return convert.agent(listed, online=listed.agent.lease_expire_time > tx.now)
