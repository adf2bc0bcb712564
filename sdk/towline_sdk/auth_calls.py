"""The calls of `AuthService`, a part of `client`."""

from dataclasses import dataclass

from towline.v1 import auth_service_pb2 as pb
from towline.v1.user_pb2 import User
from towline_sdk.transport import Transport


@dataclass(frozen=True, slots=True)
class AuthCalls:
    """Identity of people."""

    _transport: Transport

    async def register(self, email: str, password: str, name: str) -> User:
        """Registers a user."""
        request = pb.RegisterRequest(email=email, password=password, name=name)
        return (await self._transport.call(request, pb.RegisterResponse)).user

    async def login(self, email: str, password: str) -> pb.LoginResponse:
        """Exchanges email and password for a token."""
        request = pb.LoginRequest(email=email, password=password)
        return await self._transport.call(request, pb.LoginResponse)

    async def me(self) -> User:
        """Returns the user whose token the client carries."""
        return (await self._transport.call(pb.GetMeRequest(), pb.GetMeResponse)).user
