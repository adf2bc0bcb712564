"""Encrypts the values of secrets: AES-256-GCM, bound to the row that a value belongs to. Knows no rows.

The first key encrypts, all decrypt, so that keys can be changed: put a new one first, encrypt anew, drop the old one.
A key is named by a part of its hash, which is stored beside what it encrypted and tells nothing of the key.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
MAX_KEYS: Final = 16
_NONCE_BYTES: Final = 12
_LEAST_DISTINCT_BYTES: Final = 16
"""Of 32 random bytes nearly all differ; a word, a pattern or zeros do not reach this."""
VARIABLE: Final = "TOWLINE_SECRETS_KEY"


class Undecipherable(Exception):
    """A value that no key here decrypts, or that was tampered with; the message says which of them."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value and the name of its key."""

    key_id: str
    nonce: bytes
    ciphertext: bytes


class Keyring:
    """The keys of a control plane; never shown."""

    def __init__(self, keys: Mapping[str, AESGCM]) -> None:
        self._keys = keys
        self.key_id = next(iter(keys))
        """The key that encrypts."""

    @classmethod
    def parse(cls, text: str) -> "Keyring | None":
        """Returns the keys of the setting, or None if it is empty; raises ValueError that says what is wrong."""
        if not text.strip():
            return None
        keys = [_key(number, part.strip()) for number, part in enumerate(text.split(","), start=1)]
        if len(keys) > MAX_KEYS:
            raise ValueError(f"{VARIABLE} has more than {MAX_KEYS} keys")
        return cls({_name(key): AESGCM(key) for key in keys})

    def seal(self, value: str, secret_id: str, version: int) -> Sealed:
        """Encrypts a version of a secret; it can be opened as that version of that secret only."""
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(
            self.key_id, nonce, self._keys[self.key_id].encrypt(nonce, value.encode(), _row(secret_id, version))
        )

    def open(self, sealed: Sealed, secret_id: str, version: int) -> str:
        """Returns the value; raises Undecipherable."""
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise Undecipherable(f"it was encrypted with the key {sealed.key_id}, which is not in {VARIABLE}")
        try:
            return key.decrypt(sealed.nonce, sealed.ciphertext, _row(secret_id, version)).decode()
        except InvalidTag:
            raise Undecipherable("what is stored was changed by somebody else than the control plane") from None


def new_key() -> str:
    """Returns a random key as the setting wants it."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def _key(number: int, text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"key {number} of {VARIABLE} is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"key {number} of {VARIABLE} has {len(key)} bytes, not {KEY_BYTES}: `openssl rand -base64 32`")
    if len(set(key)) < _LEAST_DISTINCT_BYTES:
        raise ValueError(f"key {number} of {VARIABLE} is not random: `openssl rand -base64 32`")
    return key


def _name(key: bytes) -> str:
    return hashlib.sha256(b"towline secrets key " + key).hexdigest()[:12]


def _row(secret_id: str, version: int) -> bytes:
    return f"{secret_id}:{version}".encode()
