"""UserService: users as an admin sees them. What takes rights away ends tokens and streams at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from towline.v1 import user_pb2
from towline.v1 import user_service_pb2 as pb
from towline_controlplane.bus import Doorbell, credentials_topic
from towline_controlplane.errors import InvalidArgument, InvalidState
from towline_controlplane.model import Role, User
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context
from towline_controlplane.services.checks import found
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.sign_ins import SignIns, sign_out
from towline_controlplane.store import api_keys, users
from towline_controlplane.store.database import Database, Transaction

_LIMITS: Final = PageLimits()
_QUERY: Final = "ListUsers"
_ROLES: Final = {user_pb2.User.USER: Role.USER, user_pb2.User.ADMIN: Role.ADMIN}


@dataclass(frozen=True, slots=True)
class UserService:
    """Implements `towline.v1.UserService`."""

    database: Database
    doorbell: Doorbell
    sign_ins: SignIns

    async def ListUsers(self, request: pb.ListUsersRequest, _context: Context) -> pb.ListUsersResponse:
        """Lists users by email."""
        size = page_size(request.page_size, _LIMITS)
        after = decode_token(request.page_token, (str,), _QUERY)

        def read(tx: Transaction) -> pb.ListUsersResponse:
            page = gather(
                lambda key, limit: users.list_users(tx, str(key[0]) if key else "", limit),
                lambda row: (row.email,),
                after,
                size,
            )
            return pb.ListUsersResponse(
                users=map(convert.user, page.rows), next_page_token=encode_token(page.next_key, _QUERY)
            )

        return await self.database.read(read)

    async def GetUser(self, request: pb.GetUserRequest, _context: Context) -> pb.GetUserResponse:
        """Returns a user, by id or email."""
        user = await self.database.read(lambda tx: _user(tx, request.user_id))
        return pb.GetUserResponse(user=convert.user(user))

    async def SetUserRole(self, request: pb.SetUserRoleRequest, _context: Context) -> pb.SetUserRoleResponse:
        """Gives a user another role."""
        role = _ROLES.get(request.role)
        if role is None:
            raise InvalidArgument.of("role", "must be USER or ADMIN")

        def change(tx: Transaction, user: User) -> None:
            if user.role is role:
                return
            _keep_an_admin(tx, user)
            users.set_role(tx, user.id, role)
            sign_out(tx, user.id)

        return pb.SetUserRoleResponse(user=await self._change(request.user_id, change))

    async def SetUserPassword(
        self, request: pb.SetUserPasswordRequest, _context: Context
    ) -> pb.SetUserPasswordResponse:
        """Gives a user a new password."""
        user = await self.database.read(lambda tx: _user(tx, request.user_id))
        await self.sign_ins.set_password(user.id, request.password)
        return pb.SetUserPasswordResponse(user=convert.user(user))

    async def DisableUser(self, request: pb.DisableUserRequest, _context: Context) -> pb.DisableUserResponse:
        """Refuses a user with all that was given to it."""

        def change(tx: Transaction, user: User) -> None:
            _keep_an_admin(tx, user)
            users.set_disabled(tx, user.id, disabled=True)
            sign_out(tx, user.id)

        return pb.DisableUserResponse(user=await self._change(request.user_id, change))

    async def EnableUser(self, request: pb.EnableUserRequest, _context: Context) -> pb.EnableUserResponse:
        """Lets a disabled user sign in again."""

        def change(tx: Transaction, user: User) -> None:
            users.set_disabled(tx, user.id, disabled=False)

        return pb.EnableUserResponse(user=await self._change(request.user_id, change))

    async def SignOutUser(self, request: pb.SignOutUserRequest, _context: Context) -> pb.SignOutUserResponse:
        """Ends all sign-ins of a user."""

        def change(tx: Transaction, user: User) -> None:
            sign_out(tx, user.id)
            if request.api_keys:
                api_keys.delete_of_user(tx, user.id)

        return pb.SignOutUserResponse(user=await self._change(request.user_id, change))

    async def _change(self, id_or_email: str, how: Callable[[Transaction, User], None]) -> user_pb2.User:
        def change(tx: Transaction) -> User:
            user = _user(tx, id_or_email)
            how(tx, user)
            return _user(tx, user.id)

        changed = await self.database.write(change)
        self.doorbell.ring([credentials_topic(changed.id)])
        return convert.user(changed)


def _user(tx: Transaction, id_or_email: str) -> User:
    by_email = users.find_by_email(tx, id_or_email.strip().lower()) if "@" in id_or_email else None
    return found(by_email or users.get_user(tx, id_or_email), "user", id_or_email)


def _keep_an_admin(tx: Transaction, user: User) -> None:
    if users.is_last_admin(tx, user.id):
        raise InvalidState("the last admin stays one and is not disabled: make another user an admin first")
