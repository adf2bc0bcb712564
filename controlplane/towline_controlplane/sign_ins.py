"""Sign-ins: from a password to tokens, on to fresh ones, and out.

A refresh token is good once. One that comes again means that two have it, so the sign-in ends with all its tokens.
What ends here ends at the commit: tokens are looked up at every call, and the user's topic rings for open streams.
"""

from dataclasses import dataclass
from typing import Final

import structlog

from towline_controlplane.bus import Doorbell, credentials_topic
from towline_controlplane.call_limits import Attempts
from towline_controlplane.errors import BadCredentials, Unauthenticated
from towline_controlplane.identity import Person, SignIn
from towline_controlplane.ids import new_id
from towline_controlplane.model import User
from towline_controlplane.passwords import Passwords
from towline_controlplane.store import sign_ins, users
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.tokens import AccessToken, AccessTokens, RefreshSecret, fingerprint

MAX_SIGN_INS: Final = 100
"""Of one user; the one that was used longest ago goes first."""
# Expiry is judged by the clock of a replica and forgotten by that of the database.
_CLOCKS_DIFFER_SECONDS: Final = 3_600

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user who has proved who it is, and the tokens for the calls to come."""

    user: User
    token: AccessToken
    refresh: RefreshSecret
    expire_time: int
    """When the sign-in ends for good."""


class SignIns:
    """Begins, continues and ends sign-ins, each of which lasts `days` at most."""

    def __init__(
        self,
        database: Database,
        doorbell: Doorbell,
        passwords: Passwords,
        tokens: AccessTokens,
        attempts: Attempts,
        days: float = 30,
    ) -> None:
        self._database = database
        self._doorbell = doorbell
        self._passwords = passwords
        self._tokens = tokens
        self._attempts = attempts
        self._lifetime_us = int(days * 86_400_000_000)

    async def login(self, email: str, password: str, address: str = "") -> SignedIn:
        """Returns the user with fresh tokens; raises BadCredentials, after the same work whatever was wrong.

        Raises RateLimited for who has been wrong too often from the same address about the same email.
        """
        account = email.strip().lower()
        await self._attempts.begin(address, account)
        user = await self._database.read(lambda tx: users.find_by_email(tx, account))
        matches = await self._passwords.matches(password, user and user.password_hash)
        if not matches or user is None or user.disabled:
            raise BadCredentials("email or password is wrong", user.id if user else "")
        await self._attempts.forgive(address, account)
        return await self._begin_if_unchanged(user)

    async def refresh(self, text: str) -> SignedIn:
        """Returns fresh tokens for a refresh token, which then is used; raises Unauthenticated."""
        given = RefreshSecret.parse(text)
        fresh = RefreshSecret.new(given.family)

        def exchange(tx: Transaction) -> tuple[User, SignIn] | SignIn | None:
            sign_in = sign_ins.lock_by_family(tx, fingerprint(given.family))
            if sign_in is None:
                return None
            user = users.get_user(tx, sign_in.user_id)
            if user is None or user.disabled:
                return None
            if sign_in.refresh_hash != fingerprint(given.text):
                self._end(tx, sign_in.id)
                return sign_in
            sign_ins.replace_refresh_hash(tx, sign_in.id, fingerprint(fresh.text))
            return user, sign_in

        exchanged = await self._database.write(exchange)
        if isinstance(exchanged, tuple):
            user, sign_in = exchanged
            return SignedIn(user, self._tokens.issue(user, sign_in.id), fresh, sign_in.expire_time)
        if exchanged is not None:
            log.warning("a refresh token was used twice", user_id=exchanged.user_id, sign_in_id=exchanged.id)
            self._doorbell.ring([credentials_topic(exchanged.user_id)])
        raise Unauthenticated("the refresh token is not valid, has been used or has been revoked")

    async def logout(self, person: Person) -> None:
        """Ends the sign-in that the caller's token belongs to; of a token without one, the token."""
        await self._database.write(lambda tx: self._end(tx, person.credential.id))
        self._doorbell.ring([credentials_topic(person.user.id)])

    async def change_password(self, person: Person, current: str, new: str, address: str = "") -> SignedIn:
        """Sets a new password, ends all sign-ins and begins one; raises BadCredentials or InvalidArgument.

        Raises RateLimited as `login` does.
        """
        await self._attempts.begin(address, person.user.email)
        if not await self._passwords.matches(current, person.user.password_hash):
            raise BadCredentials("the current password is wrong")
        await self._attempts.forgive(address, person.user.email)
        return await self._begin_if_unchanged(person.user, await self._passwords.hash(new, "newPassword"))

    async def set_password(self, user_id: str, new: str) -> None:
        """Sets a new password and ends all sign-ins; raises InvalidArgument."""
        password_hash = await self._passwords.hash(new)

        def change(tx: Transaction) -> None:
            users.set_password(tx, user_id, password_hash)
            sign_out(tx, user_id)

        await self._database.write(change)
        self._doorbell.ring([credentials_topic(user_id)])

    async def _begin_if_unchanged(self, known: User, password_hash: str | None = None) -> SignedIn:
        """Begins a sign-in, with a new password if there is one; only while the user is as it was checked."""
        refresh, sign_in_id = RefreshSecret.new(), new_id()

        def begin(tx: Transaction) -> tuple[User, int]:
            user = users.get_user(tx, known.id)
            if user is None or user.disabled or user.password_hash != known.password_hash:
                raise BadCredentials("email or password is wrong")
            if password_hash is not None:
                users.set_password(tx, user.id, password_hash)
                sign_out(tx, user.id)
                user = users.get_user(tx, user.id) or user
            expires = tx.now + self._lifetime_us
            hashes = fingerprint(refresh.family), fingerprint(refresh.text)
            sign_ins.insert(tx, SignIn(sign_in_id, user.id, *hashes, tx.now, tx.now, expires), MAX_SIGN_INS)
            return user, expires

        user, expires = await self._database.write(begin)
        if password_hash is not None:
            self._doorbell.ring([credentials_topic(user.id)])
        return SignedIn(user, self._tokens.issue(user, sign_in_id), refresh, expires)

    def _end(self, tx: Transaction, sign_in_id: str) -> None:
        sign_ins.delete_sign_in(tx, sign_in_id)
        remembered = self._tokens.lifetime_seconds + _CLOCKS_DIFFER_SECONDS
        sign_ins.revoke_token(tx, sign_in_id, tx.now + remembered * 1_000_000)


def sign_out(tx: Transaction, user_id: str) -> None:
    """Ends all sign-ins of a user and makes all its tokens count no more."""
    sign_ins.delete_of_user(tx, user_id)
    users.raise_token_version(tx, user_id)
