"""A server is reached with TLS under https://, and believed only with a certificate of a known authority."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from certificates import authority_and_server
from cli_fakes import FakeControlPlane, serving

from towline_sdk.client import Client
from towline_sdk.errors import InvalidArgumentError, UnavailableError


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    return tmp_path / "ca.pem"


@pytest.fixture
def secure(roots: Path) -> Iterator[FakeControlPlane]:
    root, key, certificate = authority_and_server()
    roots.write_bytes(root)
    with serving(grpc.ssl_server_credentials([(key, certificate)])) as fake:
        yield fake


async def _ask(address: str, ca_file: Path | None = None) -> None:
    async with Client(address, "token-1", ca_file=ca_file, deadline_seconds=5) as client:
        await client.auth.me()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_of_a_known_authority_is_believed(host: str, secure: FakeControlPlane, roots: Path) -> None:
    port = secure.address.rpartition(":")[2]
    asyncio.run(_ask(f"https://{host}:{port}", roots))
    assert secure.calls[0].metadata["authorization"] == "Bearer token-1"


def test_roots_of_the_system_are_those_that_openssl_is_told(
    secure: FakeControlPlane, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    asyncio.run(_ask(f"https://{secure.address}"))
    assert secure.methods() == ["GetMe"]


def test_a_server_of_another_authority_is_told_nothing(secure: FakeControlPlane, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(authority_and_server()[0])
    with pytest.raises(UnavailableError):
        asyncio.run(_ask(f"https://{secure.address}", other))
    assert secure.calls == []


def test_plain_text_reaches_no_server_with_tls(secure: FakeControlPlane) -> None:
    with pytest.raises(UnavailableError):
        asyncio.run(_ask(secure.address))
    assert secure.calls == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_without_certificates_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidArgumentError, match=r"ca\.pem"):
        asyncio.run(_ask("https://127.0.0.1:1", file))
