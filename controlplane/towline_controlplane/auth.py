"""Accounts: who people and agents are, always by what the database says now.

A token only names a user; its role, and whether its tokens still count, are read at every call (I23). Answers do not
tell an unknown email from a wrong password.
"""

import re
from dataclasses import dataclass
from typing import Final

import structlog

from towline_controlplane.errors import AlreadyExists, BadCredentials, InvalidArgument, Unauthenticated, Violation
from towline_controlplane.ids import new_id
from towline_controlplane.model import AgentRecord, Role, User
from towline_controlplane.passwords import Passwords
from towline_controlplane.store import agents, rotation, users
from towline_controlplane.store.database import Database
from towline_controlplane.tokens import AGENT_PREFIX, AccessToken, AccessTokens, fingerprint

MAX_EMAIL_LENGTH: Final = 254
MAX_NAME_LENGTH: Final = 200
MAX_CREDENTIAL_LENGTH: Final = 200
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SignIn:
    """A user who gave the right password, and the token for the calls to come."""

    user: User
    token: AccessToken


class Accounts:
    """Registers, signs in and recognises callers."""

    def __init__(
        self, database: Database, passwords: Passwords, tokens: AccessTokens, credential_days: float = 0
    ) -> None:
        """An agent gets a new credential after so many days; 0: when an admin says so."""
        self._keep_us = int(credential_days * 86_400_000_000)
        self._database = database
        self._passwords = passwords
        self._tokens = tokens

    async def register(self, email: str, password: str, name: str, role: Role = Role.USER) -> User:
        """Creates a user; raises InvalidArgument or AlreadyExists."""
        address = _checked_email(email)
        if not 1 <= len(name.strip()) <= MAX_NAME_LENGTH or "\0" in name:
            raise InvalidArgument.of("name", f"must have 1 to {MAX_NAME_LENGTH} characters")
        password_hash = await self._passwords.hash(password)

        def insert(tx: users.Transaction) -> User:
            user = User(new_id(), address, name.strip(), password_hash, role, token_version=1, create_time=tx.now)
            users.insert_user(tx, user)
            return user

        return await self._database.write(insert)

    async def login(self, email: str, password: str) -> SignIn:
        """Returns the user with a fresh token; raises BadCredentials, after the same work whatever was wrong."""
        address = _normalised(email)
        user = await self._database.read(lambda tx: users.find_by_email(tx, address))
        if not await self._passwords.matches(password, user and user.password_hash) or user is None:
            raise BadCredentials("email or password is wrong")
        return SignIn(user, self._tokens.issue(user))

    async def user_of(self, token: str) -> User:
        """Returns the user whose access token this is, as the database has it now; raises Unauthenticated."""
        claims = self._tokens.verify(token)
        user = await self._database.read(lambda tx: users.get_user(tx, claims.user_id))
        if user is None or user.token_version != claims.token_version:
            raise Unauthenticated("the access token has been revoked")
        return user

    async def agent_of(self, credential: str) -> AgentRecord:
        """Returns the agent whose credential this is; raises Unauthenticated."""
        if not credential.startswith(AGENT_PREFIX) or len(credential) > MAX_CREDENTIAL_LENGTH:
            raise Unauthenticated("the agent credential is not valid")
        credential_hash = fingerprint(credential)
        agent = await self._database.read(lambda tx: agents.find_by_credential(tx, credential_hash))
        if agent is None:
            raise Unauthenticated("the agent credential is not valid")
        if agent.disabled:
            raise Unauthenticated("an admin has disabled the agent")
        if agent.next_credential_hash == credential_hash:
            await self._database.write(lambda tx: rotation.use_next(tx, credential_hash, self._keep_us))
            log.info("credential_rotated", agent=agent.id)
        return agent

    async def ensure_admin(self, email: str, password: str) -> User:
        """Creates the first admin; a user who has the email already is left as it is."""
        address = _checked_email(email)
        found = await self._database.read(lambda tx: users.find_by_email(tx, address))
        if found is None:
            try:
                return await self.register(email, password, "Administrator", Role.ADMIN)
            except AlreadyExists:
                found = await self._database.read(lambda tx: users.find_by_email(tx, address))
        if found is None:
            raise LookupError("the admin's account vanished while it was being created")
        if found.role is not Role.ADMIN:
            log.warning("the configured admin exists without the role", user_id=found.id)
        return found


def _normalised(email: str) -> str:
    return email.strip().lower()


def _checked_email(email: str) -> str:
    address = _normalised(email)
    if len(address) > MAX_EMAIL_LENGTH or not _EMAIL.fullmatch(address):
        raise InvalidArgument([Violation("email", f"must be an address of at most {MAX_EMAIL_LENGTH} characters")])
    return address
