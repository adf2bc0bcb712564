"""Bearer tokens: the JWT of a person, and the opaque secrets of refreshing, API keys, agents and enrollments.

One algorithm, one key, one header: any other is refused before a claim is read. Opaque secrets are stored as their
SHA-256 only; 256 random bits need no slow hash.
"""

import hashlib
import re
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
MIN_DISTINCT_CHARACTERS: Final = 10
_PLACEHOLDERS: Final = ("changeme", "change-me", "change_me", "your-256-bit-secret", "replace-me", "replace_me")
MAX_TOKEN_LENGTH: Final = 4_096
AGENT_PREFIX: Final = "twa_"
ENROLLMENT_PREFIX: Final = "twe_"
API_KEY_PREFIX: Final = "twk_"
REFRESH_PREFIX: Final = "twr_"
LEASE_PREFIX: Final = "twl_"
_REFRESH: Final = re.compile(rf"({REFRESH_PREFIX}[\w-]{{22}})\.[\w-]{{43}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token made for a user, and when it expires."""

    text: str
    lifetime_seconds: int
    expire_time: int
    """Microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says: whose it is, and all by which it may have been revoked."""

    user_id: str
    token_version: int
    token_id: str
    sign_in_id: str
    """Empty: it belongs to no sign-in."""
    expire_time: int
    """Microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class RefreshSecret:
    """A refresh token; all of one sign-in begin with the same family."""

    text: str
    family: str

    @classmethod
    def new(cls, family: str = "") -> "RefreshSecret":
        """Returns a new one, of a family or of a new family."""
        family = family or REFRESH_PREFIX + secrets.token_urlsafe(16)
        return cls(f"{family}.{secrets.token_urlsafe(32)}", family)

    @classmethod
    def parse(cls, text: str) -> "RefreshSecret":
        """Returns the refresh token that the text is; raises Unauthenticated."""
        form = _REFRESH.fullmatch(text) if len(text) <= MAX_TOKEN_LENGTH else None
        if form is None:
            raise Unauthenticated("the refresh token is not valid")
        return cls(text, form.group(1))


class AccessTokens:
    """Issues and verifies the JWTs of people. `clock` tells seconds since the epoch."""

    def __init__(self, secret: str, lifetime_seconds: int = 12 * 3600, clock: Callable[[], float] = time.time) -> None:
        if weakness := weakness_of(secret):
            raise ValueError(f"the JWT secret {weakness}")
        self._secret = secret
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock

    @property
    def lifetime_seconds(self) -> int:
        """How long a token is good."""
        return self._lifetime_seconds

    def issue(self, user: User, sign_in_id: str = "") -> AccessToken:
        """Returns a token that is good until its lifetime ends, or it, its sign-in or the user's version is revoked."""
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
            "sid": sign_in_id,
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
        texts = claims["sub"], claims["jti"], claims.get("sid", "")
        version, expires = claims["tv"], claims["exp"]
        if claims["typ"] != TYPE or type(version) is not int or not all(isinstance(each, str) for each in texts):
            raise Unauthenticated("the access token is not valid")
        subject, token_id, sign_in_id = cast("tuple[str, str, str]", texts)
        return Claims(subject, version, token_id, sign_in_id, cast("int", expires) * 1_000_000)

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


def weakness_of(secret: str) -> str:
    """Returns why a key for signing is too easy to guess; empty if nothing speaks against it."""
    if len(secret.encode()) < MIN_SECRET_BYTES:
        return f"must have at least {MIN_SECRET_BYTES} bytes"
    repeats = secret in (secret + secret)[1:-1]
    if repeats or len(set(secret)) < MIN_DISTINCT_CHARACTERS or any(each in secret.lower() for each in _PLACEHOLDERS):
        return "is easy to guess: take one from `openssl rand -base64 48`"
    return ""


def new_agent_credential() -> str:
    """Returns the secret by which an agent is known; the caller shows it once and stores its fingerprint."""
    return AGENT_PREFIX + secrets.token_urlsafe(32)


def new_lease_token() -> str:
    """Returns a secret that is the right to an attempt; the prefix lets it be found where it should not be."""
    return LEASE_PREFIX + secrets.token_urlsafe(32)


def new_api_key() -> str:
    """Returns a secret with which a machine acts for a user; the caller shows it once and stores its fingerprint."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def new_enrollment_token() -> str:
    """Returns a secret that turns a machine into an agent; the caller shows it once and stores its fingerprint."""
    return ENROLLMENT_PREFIX + secrets.token_urlsafe(32)


def fingerprint(secret: str) -> str:
    """Returns what is stored of an opaque secret: its SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
