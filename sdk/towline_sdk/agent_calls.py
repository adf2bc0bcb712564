"""The calls of `AgentAdminService`, a part of `client`."""

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from towline.v1 import agent_admin_service_pb2 as pb
from towline.v1.agent_pb2 import Agent
from towline.v1.sandbox_pb2 import Sandbox
from towline_sdk.pages import FIRST_PAGE, Page
from towline_sdk.transport import Transport


@dataclass(frozen=True, slots=True)
class AgentCalls:
    """Agents, for admins."""

    _transport: Transport

    async def list(self, page: Page = FIRST_PAGE) -> pb.ListAgentsResponse:
        """Returns a page of agents by name."""
        request = pb.ListAgentsRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, pb.ListAgentsResponse)

    async def get(self, agent: str) -> Agent:
        """Returns an agent, by id or name."""
        request = pb.GetAgentRequest(agent_id=agent)
        return (await self._transport.call(request, pb.GetAgentResponse)).agent

    async def drain(self, agent: str) -> Agent:
        """Offers an agent nothing any more; what it runs goes on."""
        request = pb.DrainAgentRequest(agent_id=agent)
        return (await self._transport.call(request, pb.DrainAgentResponse)).agent

    async def undrain(self, agent: str) -> Agent:
        """Offers steps to a drained agent again."""
        request = pb.UndrainAgentRequest(agent_id=agent)
        return (await self._transport.call(request, pb.UndrainAgentResponse)).agent

    async def disable(self, agent: str) -> Agent:
        """Refuses an agent's credential, and takes from it what it holds."""
        request = pb.DisableAgentRequest(agent_id=agent)
        return (await self._transport.call(request, pb.DisableAgentResponse)).agent

    async def enable(self, agent: str) -> Agent:
        """Accepts a disabled agent's credential again."""
        request = pb.EnableAgentRequest(agent_id=agent)
        return (await self._transport.call(request, pb.EnableAgentResponse)).agent

    async def rotate(self, agent: str) -> Agent:
        """Gives an agent a new credential with its next Sync."""
        request = pb.RotateAgentRequest(agent_id=agent)
        return (await self._transport.call(request, pb.RotateAgentResponse)).agent

    async def tokens(self) -> pb.ListEnrollmentTokensResponse:
        """Lists the enrollment tokens that may still be used."""
        request = pb.ListEnrollmentTokensRequest()
        return await self._transport.call(request, pb.ListEnrollmentTokensResponse)

    async def revoke_token(self, token_id: str) -> None:
        """Makes an enrollment token useless."""
        request = pb.RevokeEnrollmentTokenRequest(token_id=token_id)
        await self._transport.call(request, pb.RevokeEnrollmentTokenResponse)

    async def cap(self, agent: str, level: Sandbox.Level) -> Agent:
        """Believes an agent no stronger sandbox than this; LEVEL_UNSPECIFIED takes that back."""
        request = pb.CapAgentRequest(agent_id=agent, level=level)
        return (await self._transport.call(request, pb.CapAgentResponse)).agent

    async def create_token(
        self, uses: int = 1, lifetime_seconds: int | None = None
    ) -> pb.CreateEnrollmentTokenResponse:
        """Makes an enrollment token, which is shown only here."""
        lifetime = None if lifetime_seconds is None else Duration(seconds=lifetime_seconds)
        request = pb.CreateEnrollmentTokenRequest(uses=uses, lifetime=lifetime)
        return await self._transport.call(request, pb.CreateEnrollmentTokenResponse)
