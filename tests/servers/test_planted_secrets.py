"""The search that follows the suite finds every kind of credential that the product makes, and no hash of one."""

from collections.abc import Callable
from pathlib import Path

import planted_secrets
import pytest

from towline_controlplane import tokens
from towline_controlplane.model import Role, User
from towline_controlplane.sources import Sources

USER = User("u1", "u@example.com", "U", "", Role.USER, 1, 0)
KINDS: dict[str, Callable[[], str]] = {
    "access token": lambda: tokens.AccessTokens("0123456789 abcdefghijk lmnopqrstuv").issue(USER).text,
    "refresh token": lambda: tokens.RefreshSecret.new().text,
    "API key": tokens.new_api_key,
    "agent credential": tokens.new_agent_credential,
    "enrollment token": tokens.new_enrollment_token,
    "lease token": Sources().new_token,
    "password": planted_secrets.PLANTED[0].decode,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["controlplane.log", "towline.db", "metrics.prom"])
def test_a_planted_secret_is_found(tmp_path: Path, kind: str, name: str) -> None:
    secret = KINDS[kind]()
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / name
    file.write_bytes(b'{"token": "' + tokens.fingerprint(secret).encode() + b'"}\n')
    assert not list(planted_secrets.search(tmp_path))
    file.write_bytes(b'\0\n{"token": "' + secret.encode() + b'"}\n')
    (found,) = planted_secrets.search(tmp_path)
    file.unlink()  # the search after the suite would find it too
    assert found.startswith(f"deep/{name}: {secret[:4]}")
    assert secret not in found


def test_the_hash_of_a_password_belongs_into_the_database_only(tmp_path: Path) -> None:
    hashed = b"$2b$04$" + b"a" * 53
    assert not planted_secrets.secrets_in(hashed, log=False)
    assert planted_secrets.secrets_in(hashed, log=True)
