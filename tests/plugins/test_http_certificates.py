"""HTTPS: a certificate that is trusted for the host is accepted, any other is a permanent failure."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from http_server import Answer, Server, serving

from towline_plugins import http_request
from towline_sdk.plugin import PermanentError, TransientError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is needed to make a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem"
    names = ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    monkeypatch.setenv("TOWLINE_HTTP_ALLOW", "127.0.0.0/8,localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with serving(context) as server:
        server.answers["/"] = Answer(200, {}, b"private")
        yield server


def test_trusted_certificate_is_accepted(server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    assert http_request.run({"url": f"https://{server.address}/"})["body"] == "private"


def test_certificate_of_another_host_is_refused(
    server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    with pytest.raises(PermanentError) as failure:
        http_request.run({"url": f"https://localhost:{server.server_port}/"})
    assert failure.value.code == "HTTP_CERTIFICATE_INVALID"


def test_unknown_certificate_is_refused(server: Server) -> None:
    with pytest.raises(PermanentError) as failure:
        http_request.run({"url": f"https://{server.address}/"})
    assert failure.value.code == "HTTP_CERTIFICATE_INVALID"
    assert server.seen == []


def test_silence_before_the_handshake_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_HTTP_ALLOW", "127.0.0.0/8")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TransientError) as failure:
        http_request.run({"url": f"https://127.0.0.1:{silent.getsockname()[1]}/", "timeoutMs": 300})
    assert failure.value.code == "HTTP_TIMEOUT"
