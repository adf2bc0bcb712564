"""API keys: what a machine presents to act for a user, within scopes.

A scope is `<noun>:read`, `<noun>:write`, `<noun>:*`, `*` or `admin`. A key without `admin` acts as a user, also if its
owner is an admin: it sees what its owner owns.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from towline_controlplane.bus import Doorbell, credentials_topic
from towline_controlplane.errors import InvalidArgument, LimitExceeded, NotFound, Violation
from towline_controlplane.identity import ApiKey
from towline_controlplane.ids import new_id
from towline_controlplane.model import User
from towline_controlplane.store import api_keys
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.tokens import fingerprint, new_api_key

ADMIN_SCOPE: Final = "admin"
ANY_SCOPE: Final = "*"
MAX_KEYS: Final = 100
"""Of one user."""
MAX_NAME_LENGTH: Final = 200
MAX_SCOPES: Final = 32
MAX_LIFETIME_SECONDS: Final = 3_650 * 86_400
SHOWN_LENGTH: Final = 10
"""Characters of a key that tell it from others."""
_ACTIONS: Final = ("read", "write", "*")


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Makes, lists and revokes keys; `nouns` are those that a scope may name."""

    database: Database
    doorbell: Doorbell
    nouns: frozenset[str]

    async def create(self, user: User, name: str, scopes: Sequence[str], lifetime_us: int | None) -> tuple[ApiKey, str]:
        """Returns a new key and its secret; raises InvalidArgument or LimitExceeded."""
        wrong = [*_wrong_name(name), *self._wrong_scopes(scopes), *_wrong_lifetime(lifetime_us)]
        if wrong:
            raise InvalidArgument(wrong)
        secret = new_api_key()

        def insert(tx: Transaction) -> ApiKey:
            if api_keys.count_of_user(tx, user.id) >= MAX_KEYS:
                raise LimitExceeded(f"nobody can have more than {MAX_KEYS} API keys")
            expires = None if lifetime_us is None else tx.now + lifetime_us
            granted, shown = tuple(dict.fromkeys(scopes)), secret[:SHOWN_LENGTH]
            key = ApiKey(new_id(), user.id, name.strip(), shown, fingerprint(secret), granted, tx.now, expires, None)
            api_keys.insert(tx, key)
            return key

        return await self.database.write(insert), secret

    async def revoke(self, user: User, key_id: str) -> None:
        """Makes a key of the user count no more; raises NotFound."""
        if not await self.database.write(lambda tx: api_keys.delete_key(tx, key_id, user.id)):
            raise NotFound(f"there is no API key {key_id[:100]}")
        self.doorbell.ring([credentials_topic(user.id)])

    def _wrong_scopes(self, scopes: Sequence[str]) -> list[Violation]:
        if not 1 <= len(scopes) <= MAX_SCOPES:
            return [Violation("scopes", f"must be 1 to {MAX_SCOPES}")]
        known = {ADMIN_SCOPE, ANY_SCOPE, *(f"{noun}:{action}" for noun in self.nouns for action in _ACTIONS)}
        choice = f"must be `*`, `admin`, or one of {', '.join(sorted(self.nouns))} with `:read`, `:write` or `:*`"
        return [Violation(f"scopes[{index}]", choice) for index, scope in enumerate(scopes) if scope not in known]


def reaches(scopes: Iterable[str], needed: str) -> bool:
    """Tells whether scopes allow what needs the scope `<noun>:read`, `<noun>:write` or `admin`."""
    if needed == ADMIN_SCOPE:
        return ADMIN_SCOPE in scopes
    noun = needed.partition(":")[0]
    return not {needed, f"{noun}:*", ANY_SCOPE}.isdisjoint(scopes)


def _wrong_name(name: str) -> list[Violation]:
    good = len(name.strip()) >= 1 and len(name) <= MAX_NAME_LENGTH and name.isprintable()
    return [] if good else [Violation("name", f"must have 1 to {MAX_NAME_LENGTH} printable characters")]


def _wrong_lifetime(lifetime_us: int | None) -> list[Violation]:
    if lifetime_us is None or 0 < lifetime_us <= MAX_LIFETIME_SECONDS * 1_000_000:
        return []
    return [Violation("lifetime", "must be more than 0 and at most 10 years")]
