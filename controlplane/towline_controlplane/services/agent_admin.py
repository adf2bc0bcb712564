"""AgentAdminService: agents as an admin sees them, and the tokens that machines enroll with."""

from dataclasses import dataclass
from typing import Final

from towline.v1 import agent_admin_service_pb2 as pb
from towline_controlplane import tokens
from towline_controlplane.errors import InvalidArgument
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context
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
