"""The calls of `UserService`, a part of `client`, for admins."""

from dataclasses import dataclass

from towline.v1 import user_service_pb2 as pb
from towline.v1.user_pb2 import User
from towline_sdk.pages import FIRST_PAGE, Page
from towline_sdk.transport import Transport


@dataclass(frozen=True, slots=True)
class UserCalls:
    """Users, each named by its id or email."""

    _transport: Transport

    async def list(self, page: Page = FIRST_PAGE) -> pb.ListUsersResponse:
        """Returns a page of users by email."""
        request = pb.ListUsersRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, pb.ListUsersResponse)

    async def get(self, user: str) -> User:
        """Returns a user."""
        return (await self._transport.call(pb.GetUserRequest(user_id=user), pb.GetUserResponse)).user

    async def set_role(self, user: str, role: User.Role) -> User:
        """Gives a user another role."""
        request = pb.SetUserRoleRequest(user_id=user, role=role)
        return (await self._transport.call(request, pb.SetUserRoleResponse)).user

    async def set_password(self, user: str, password: str) -> User:
        """Gives a user a new password and ends its sign-ins."""
        request = pb.SetUserPasswordRequest(user_id=user, password=password)
        return (await self._transport.call(request, pb.SetUserPasswordResponse)).user

    async def disable(self, user: str) -> User:
        """Refuses a user with all its tokens and API keys."""
        return (await self._transport.call(pb.DisableUserRequest(user_id=user), pb.DisableUserResponse)).user

    async def enable(self, user: str) -> User:
        """Lets a disabled user sign in again."""
        return (await self._transport.call(pb.EnableUserRequest(user_id=user), pb.EnableUserResponse)).user

    async def sign_out(self, user: str, *, api_keys: bool = False) -> User:
        """Ends all sign-ins of a user, and revokes its API keys if asked to."""
        request = pb.SignOutUserRequest(user_id=user, api_keys=api_keys)
        return (await self._transport.call(request, pb.SignOutUserResponse)).user
