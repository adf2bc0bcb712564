"""The nouns of identity: who calls, by which credential, and what of it is kept. Frozen, as in `model`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from towline_controlplane.model import User


class CredentialKind(StrEnum):
    """What a caller has presented."""

    TOKEN = "TOKEN"  # noqa: S105 - a kind of credential
    API_KEY = "API_KEY"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential that counts, without what makes it one."""

    kind: CredentialKind
    id: str
    """Of the sign-in that a token belongs to (of the token itself, if to none), or of the API key."""
    expire_time: int | None = None
    """Microseconds since the epoch; None: it does not expire."""
    scopes: frozenset[str] = frozenset()
    """Of an API key."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user who calls, as far as the credential reaches."""

    user: User
    credential: Credential


NOBODY: Final = Credential(CredentialKind.NONE, "")
"""What those present who need not be known."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A call that changed something, or tried to: who, by what, which method, about what, from where, how it ended."""

    id: str
    time: int
    """Of the database; set when it is stored."""
    user_id: str
    credential: CredentialKind
    credential_id: str
    method: str
    target: Mapping[str, str]
    address: str
    request_id: str
    code: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a user began with a password: a family of tokens, of which one refresh token counts at a time."""

    id: str
    user_id: str
    family_hash: str
    """Of the part that all refresh tokens of the sign-in share."""
    refresh_hash: str = field(repr=False)
    """Of the one refresh token that counts."""
    create_time: int
    use_time: int
    expire_time: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with which a machine acts for a user."""

    id: str
    user_id: str
    name: str
    prefix: str
    key_hash: str = field(repr=False)
    scopes: tuple[str, ...]
    create_time: int
    expire_time: int | None
    use_time: int | None
