"""Keys of secrets: which are refused, and what opens what."""

import base64
from dataclasses import replace

import pytest

from towline_controlplane.keyring import Keyring, Undecipherable, new_key

RANDOM = base64.b64encode(bytes(range(100, 132))).decode()


def keyring(*keys: str) -> Keyring:
    found = Keyring.parse(",".join(keys))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not base64!", "key 1 of TOWLINE_SECRETS_KEY is not base64"),
        (base64.b64encode(b"x" * 31).decode(), "has 31 bytes, not 32"),
        (base64.b64encode(bytes(32)).decode(), "is not random"),
        (base64.b64encode(b"correct horse" * 3)[:43].decode() + "=", "is not random"),
        (f"{RANDOM},", "key 2 of TOWLINE_SECRETS_KEY has 0 bytes"),
        (",".join([RANDOM] * 17), "more than 16"),
    ],
)
def test_weak_keys_are_refused_and_not_shown(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Keyring.parse(text)
    assert not any(part and part in str(caught.value) for part in text.split(","))


def test_without_a_key_there_is_no_keyring() -> None:
    assert Keyring.parse("") is Keyring.parse(" ") is None


def test_what_is_sealed_is_opened_as_the_same_version_of_the_same_secret_only() -> None:
    keys = keyring(new_key())
    sealed = keys.seal("planted", "id", 1)
    assert keys.open(sealed, "id", 1) == "planted"
    assert b"planted" not in sealed.ciphertext
    for changed, row in (
        (sealed, ("id", 2)),
        (sealed, ("other", 1)),
        (replace(sealed, ciphertext=sealed.ciphertext[:-1] + b"x"), ("id", 1)),
        (replace(sealed, nonce=bytes(12)), ("id", 1)),
    ):
        with pytest.raises(Undecipherable, match="was changed"):
            keys.open(changed, *row)


def test_the_same_value_is_never_sealed_the_same_way() -> None:
    keys = keyring(new_key())
    assert len({keys.seal("planted", "id", 1).ciphertext for _ in range(100)}) == 100


def test_the_first_key_seals_and_all_open() -> None:
    old, new = new_key(), new_key()
    sealed = keyring(old).seal("planted", "id", 1)
    both = keyring(new, old)
    assert both.open(sealed, "id", 1) == "planted"
    assert both.seal("x", "id", 1).key_id == keyring(new).key_id != sealed.key_id
    with pytest.raises(Undecipherable, match=f"the key {sealed.key_id}, which is not in TOWLINE_SECRETS_KEY"):
        keyring(new).open(sealed, "id", 1)
