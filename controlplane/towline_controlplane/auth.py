"""Accounts: who people and agents are, always by what the database says now.

A token only names a user; its role, and whether its tokens still count, are read at every call (I23). Answers do not
tell an unknown email from a wrong password.
"""

import re
from dataclasses import replace
from typing import Final

import structlog

from towline_controlplane.api_keys import ADMIN_SCOPE
from towline_controlplane.errors import AlreadyExists, InvalidArgument, Unauthenticated, Violation
from towline_controlplane.identity import ApiKey, Credential, CredentialKind, Person
from towline_controlplane.ids import new_id
from towline_controlplane.model import AgentRecord, Role, User
from towline_controlplane.passwords import Passwords
from towline_controlplane.store import agents, api_keys, rotation, users
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.tokens import AGENT_PREFIX, API_KEY_PREFIX, AccessTokens, fingerprint

MAX_EMAIL_LENGTH: Final = 254
MAX_NAME_LENGTH: Final = 200
MAX_CREDENTIAL_LENGTH: Final = 200
_USE_NOTED_AFTER_US: Final = 60_000_000
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")

log = structlog.get_logger(__name__)


class Accounts:
    """Registers people and recognises callers."""

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

        def insert(tx: Transaction) -> User:
            user = User(new_id(), address, name.strip(), password_hash, role, token_version=1, create_time=tx.now)
            users.insert_user(tx, user)
            return user

        return await self._database.write(insert)

    async def person_of(self, presented: str) -> Person:
        """Returns the user whose token or API key this is, as the database has it now; raises Unauthenticated."""
        is_key = presented.startswith(API_KEY_PREFIX)
        return await (self._owner_of_key(presented) if is_key else self._bearer_of_token(presented))

    async def _bearer_of_token(self, token: str) -> Person:
        claims = self._tokens.verify(token)
        looked_up = claims.user_id, claims.token_version, claims.token_id, claims.sign_in_id
        user = await self._database.read(lambda tx: users.find_by_token(tx, *looked_up))
        if user is None or user.disabled:
            raise Unauthenticated("the access token has been revoked")
        known_by = claims.sign_in_id or claims.token_id
        return Person(user, Credential(CredentialKind.TOKEN, known_by, claims.expire_time))

    async def _owner_of_key(self, secret: str) -> Person:
        key_hash = fingerprint(secret) if len(secret) <= MAX_CREDENTIAL_LENGTH else ""

        def find(tx: Transaction) -> tuple[ApiKey, User, bool] | None:
            if (found := api_keys.find_by_hash(tx, key_hash)) is None:
                return None
            key, user = found
            return key, user, key.use_time is None or key.use_time < tx.now - _USE_NOTED_AFTER_US

        found = await self._database.read(find)
        if found is None or found[1].disabled:
            raise Unauthenticated("the API key is not valid, has expired or has been revoked")
        key, user, is_news = found
        if is_news:
            await self._database.write(lambda tx: api_keys.note_use(tx, key.id))
        credential = Credential(CredentialKind.API_KEY, key.id, key.expire_time, frozenset(key.scopes))
        return Person(user if ADMIN_SCOPE in key.scopes else replace(user, role=Role.USER), credential)

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
