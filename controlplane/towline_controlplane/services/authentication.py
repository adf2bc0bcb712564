"""AuthService: registering, signing in and out, the caller's API keys, and asking who one is."""

from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from towline.v1 import auth_service_pb2 as pb
from towline_controlplane.api_keys import ApiKeys
from towline_controlplane.auth import Accounts
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context, current_address, current_person, current_user
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.sign_ins import SignedIn, SignIns
from towline_controlplane.store import api_keys
from towline_controlplane.store.database import Transaction

_LIMITS: Final = PageLimits()
_QUERY: Final = "ListApiKeys"

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class AuthService:
    """Implements `towline.v1.AuthService`."""

    accounts: Accounts
    sign_ins: SignIns
    api_keys: ApiKeys

    async def Register(self, request: pb.RegisterRequest, _context: Context) -> pb.RegisterResponse:
        """Creates a user with the role USER."""
        user = await self.accounts.register(request.email, request.password, request.name)
        return pb.RegisterResponse(user=convert.user(user))

    async def Login(self, request: pb.LoginRequest, _context: Context) -> pb.LoginResponse:
        """Exchanges email and password for tokens."""
        signed_in = await self.sign_ins.login(request.email, request.password, current_address())
        return _answer(pb.LoginResponse, signed_in)

    async def RefreshToken(self, request: pb.RefreshTokenRequest, _context: Context) -> pb.RefreshTokenResponse:
        """Exchanges a refresh token for fresh tokens."""
        return _answer(pb.RefreshTokenResponse, await self.sign_ins.refresh(request.refresh_token))

    async def Logout(self, _request: pb.LogoutRequest, _context: Context) -> pb.LogoutResponse:
        """Ends the sign-in that the access token belongs to."""
        await self.sign_ins.logout(current_person())
        return pb.LogoutResponse()

    async def ChangePassword(self, request: pb.ChangePasswordRequest, _context: Context) -> pb.ChangePasswordResponse:
        """Changes the caller's password and begins a new sign-in."""
        passwords = request.current_password, request.new_password
        changed = await self.sign_ins.change_password(current_person(), *passwords, current_address())
        return _answer(pb.ChangePasswordResponse, changed)

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, _context: Context) -> pb.CreateApiKeyResponse:
        """Makes an API key for the caller."""
        lifetime_us = request.lifetime.ToMicroseconds() if request.HasField("lifetime") else None
        key, secret = await self.api_keys.create(current_user(), request.name, request.scopes, lifetime_us)
        return pb.CreateApiKeyResponse(api_key=convert.api_key(key), key=secret)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, _context: Context) -> pb.ListApiKeysResponse:
        """Lists the caller's API keys, the newest first."""
        user = current_user()
        size = page_size(request.page_size, _LIMITS)
        after = decode_token(request.page_token, (str,), _QUERY, user.id)

        def read(tx: Transaction) -> pb.ListApiKeysResponse:
            page = gather(
                lambda key, limit: api_keys.list_of_user(tx, user.id, str(key[0]) if key else "", limit),
                lambda row: (row.id,),
                after,
                size,
            )
            return pb.ListApiKeysResponse(
                api_keys=map(convert.api_key, page.rows), next_page_token=encode_token(page.next_key, _QUERY, user.id)
            )

        return await self.api_keys.database.read(read)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, _context: Context) -> pb.RevokeApiKeyResponse:
        """Makes an API key of the caller useless."""
        await self.api_keys.revoke(current_user(), request.api_key_id)
        return pb.RevokeApiKeyResponse()

    async def GetMe(self, _request: pb.GetMeRequest, _context: Context) -> pb.GetMeResponse:
        """Returns the caller."""
        return pb.GetMeResponse(user=convert.user(current_user()))


def _answer(kind: type[Answer], signed_in: SignedIn) -> Answer:
    """Returns one of the messages that carry tokens; their fields have the same names."""
    fields: dict[str, Any] = {
        "access_token": signed_in.token.text,
        "expires_in": signed_in.token.lifetime_seconds,
        "user": convert.user(signed_in.user),
        "expire_time": convert.timestamp(signed_in.token.expire_time),
        "refresh_token": signed_in.refresh.text,
        "refresh_expire_time": convert.timestamp(signed_in.expire_time),
    }
    return kind(**fields)
