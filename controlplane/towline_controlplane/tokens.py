"""Bearer tokens: the JWT of a person, and the opaque secrets of agents and enrollments.

One algorithm, one key, one header: any other is refused before a claim is read. Opaque secrets are stored as their
SHA-256 only; 256 random bits need no slow hash.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

import jwt

from towline_controlplane.errors import Unauthenticated
from towline_controlplane.model import User

ALGORITHM: Final = "HS256"
HEADER: Final[Mapping[str, str]] = {"alg": ALGORITHM, "typ": "JWT"}
ISSUER: Final = "towline"
AUDIENCE: Final = "towline-api"
TYPE: Final = "access"
REQUIRED_CLAIMS: Final = ("exp", "iat", "sub", "jti", "iss", "aud", "typ", "tv")
MIN_SECRET_BYTES: Final = 32
MAX_TOKEN_LENGTH: Final = 4_096
AGENT_PREFIX: Final = "twa_"
ENROLLMENT_PREFIX: Final = "twe_"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token made for a user, and when it expires."""

    text: str
    lifetime_seconds: int
    expire_time: int
    """Microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says: whose it is, and the version of that user's tokens it belongs to."""

    user_id: str
    token_version: int


class AccessTokens:
    """Issues and verifies the JWTs of people. `clock` tells seconds since the epoch."""

    def __init__(self, secret: str, lifetime_seconds: int = 12 * 3600, clock: Callable[[], float] = time.time) -> None:
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"the JWT secret must have at least {MIN_SECRET_BYTES} bytes")
        self._secret = secret
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock

    def issue(self, user: User) -> AccessToken:
        """Returns a token that is good until its lifetime ends or the user's token version changes."""
        now = int(self._clock())
        expires = now + self._lifetime_seconds
        claims = {
            "exp": expires,
            "iat": now,
            "sub": user.id,
            "jti": secrets.token_urlsafe(16),
            "iss": ISSUER,
            "aud": AUDIENCE,
            "typ": TYPE,
            "tv": user.token_version,
        }
        text = jwt.encode(claims, self._secret, algorithm=ALGORITHM)
        return AccessToken(text, self._lifetime_seconds, expires * 1_000_000)

    def verify(self, token: str) -> Claims:
        """Returns the claims of a token of ours; raises Unauthenticated for every other text, without saying why."""
        try:
            if len(token) > MAX_TOKEN_LENGTH or jwt.get_unverified_header(token) != HEADER:
                raise Unauthenticated("the access token is not valid")
            claims = self._decode(token)
        except jwt.PyJWTError:
            raise Unauthenticated("the access token is not valid or has expired") from None
        subject, version = claims["sub"], claims["tv"]
        if claims["typ"] != TYPE or not isinstance(subject, str) or type(version) is not int:
            raise Unauthenticated("the access token is not valid")
        return Claims(subject, version)

    def _decode(self, token: str) -> Mapping[str, object]:
        # The library reads the wall clock itself, so expiry is judged here, by the same clock that issued.
        claims = cast(
            "Mapping[str, object]",
            jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": list(REQUIRED_CLAIMS), "verify_exp": False, "verify_iat": False},
            ),
        )
        expires = claims["exp"]
        if type(expires) is not int or expires <= self._clock():
            raise jwt.ExpiredSignatureError
        return claims


def new_agent_credential() -> str:
    """Returns the secret by which an agent is known; the caller shows it once and stores its fingerprint."""
    return AGENT_PREFIX + secrets.token_urlsafe(32)


def new_enrollment_token() -> str:
    """Returns a secret that turns a machine into an agent; the caller shows it once and stores its fingerprint."""
    return ENROLLMENT_PREFIX + secrets.token_urlsafe(32)


def fingerprint(secret: str) -> str:
    """Returns what is stored of an opaque secret: its SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
