"""The calls of `AuthService`, a part of `client`."""

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from towline.v1 import auth_service_pb2 as pb
from towline.v1.user_pb2 import User
from towline_sdk.pages import FIRST_PAGE, Page
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

    async def logout(self) -> None:
        """Ends the sign-in that the client's token belongs to."""
        await self._transport.call(pb.LogoutRequest(), pb.LogoutResponse)

    async def change_password(self, current: str, new: str) -> pb.ChangePasswordResponse:
        """Changes the caller's password, ends all its sign-ins and begins a new one."""
        request = pb.ChangePasswordRequest(current_password=current, new_password=new)
        return await self._transport.call(request, pb.ChangePasswordResponse)

    async def create_api_key(
        self, name: str, scopes: Sequence[str], lifetime_seconds: int | None = None
    ) -> pb.CreateApiKeyResponse:
        """Makes a key with which a machine acts for the caller; it is shown only here."""
        lifetime = None if lifetime_seconds is None else Duration(seconds=lifetime_seconds)
        request = pb.CreateApiKeyRequest(name=name, scopes=scopes, lifetime=lifetime)
        return await self._transport.call(request, pb.CreateApiKeyResponse)

    async def api_keys(self, page: Page = FIRST_PAGE) -> pb.ListApiKeysResponse:
        """Returns a page of the caller's API keys, newest first, never the keys themselves."""
        request = pb.ListApiKeysRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, pb.ListApiKeysResponse)

    async def revoke_api_key(self, key_id: str) -> None:
        """Makes one of the caller's API keys useless."""
        await self._transport.call(pb.RevokeApiKeyRequest(api_key_id=key_id), pb.RevokeApiKeyResponse)

    async def me(self) -> User:
        """Returns the user whose token the client carries."""
        return (await self._transport.call(pb.GetMeRequest(), pb.GetMeResponse)).user
