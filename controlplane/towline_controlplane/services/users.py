"""AuthService: registering, signing in, and asking who one is."""

from dataclasses import dataclass

from towline.v1 import auth_service_pb2 as pb
from towline_controlplane.auth import Accounts
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context, current_user


@dataclass(frozen=True, slots=True)
class AuthService:
    """Implements `towline.v1.AuthService`."""

    accounts: Accounts

    async def Register(self, request: pb.RegisterRequest, _context: Context) -> pb.RegisterResponse:
        """Creates a user with the role USER."""
        user = await self.accounts.register(request.email, request.password, request.name)
        return pb.RegisterResponse(user=convert.user(user))

    async def Login(self, request: pb.LoginRequest, _context: Context) -> pb.LoginResponse:
        """Exchanges email and password for an access token."""
        signed_in = await self.accounts.login(request.email, request.password)
        return pb.LoginResponse(
            access_token=signed_in.token.text,
            expires_in=signed_in.token.lifetime_seconds,
            user=convert.user(signed_in.user),
            expire_time=convert.timestamp(signed_in.token.expire_time),
        )

    async def GetMe(self, _request: pb.GetMeRequest, _context: Context) -> pb.GetMeResponse:
        """Returns the caller."""
        return pb.GetMeResponse(user=convert.user(current_user()))
