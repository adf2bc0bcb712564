"""What a secret is: its row, its bounds, and what is wrong with a name or a value. No value is ever in a message."""

import re
from dataclasses import dataclass, field
from typing import Final

from towline_controlplane.errors import Violation
from towline_controlplane.keyring import Sealed

NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
MIN_VALUE_BYTES: Final = 8
"""Shorter values cannot be masked in logs without blotting out ordinary text."""
MAX_VALUE_BYTES: Final = 64 * 1024
MAX_SECRETS: Final = 500
"""Of one owner."""
MAX_GRANTS: Final = 100
"""Of one secret."""
MAX_GIVEN: Final = 32
"""To one step."""
UNAVAILABLE: Final = "SECRET_UNAVAILABLE"
"""Code of the failure of a step that cannot be given its secrets."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of a user, its value encrypted."""

    id: str
    owner_id: str
    name: str
    version: int
    """Counts the values that it has had; the encrypted value is bound to it."""
    key_id: str
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)
    create_time: int
    update_time: int

    @property
    def sealed(self) -> Sealed:
        """The encrypted value."""
        return Sealed(self.key_id, self.nonce, self.ciphertext)


def wrong_name(name: str, place: str = "name") -> list[Violation]:
    """Returns what is wrong with the name of a secret."""
    if NAME.fullmatch(name):
        return []
    return [Violation(place, "must be capital letters, digits and '_', not begin with a digit, at most 128 characters")]


def wrong_value(value: str) -> list[Violation]:
    """Returns what is wrong with a value."""
    size = len(value.encode())
    if size > MAX_VALUE_BYTES:
        return [Violation("value", f"has {size:,} bytes; the limit is {MAX_VALUE_BYTES:,}")]
    if len(value.strip().encode()) < MIN_VALUE_BYTES:
        return [
            Violation("value", f"must have at least {MIN_VALUE_BYTES} bytes: a shorter one cannot be kept out of logs")
        ]
    return [Violation("value", "holds a NUL character")] if "\0" in value else []
