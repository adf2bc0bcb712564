"""One HTTP request and its response, on a connection of its own, within a deadline and a size.

Knows what a failure of the network means for a retry; what a status means is not its business.
"""

import http.client
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Self
from urllib.parse import SplitResult, quote, urlsplit

from towline_plugins.http_address import AllowList, connect
from towline_sdk.plugin import PermanentError, TransientError

LARGEST_BODY_BYTES = 10 * 1024 * 1024

_COPIED_AT_A_TIME = 1 << 20
_NOT_SUCCESS = 300
_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL_CHARACTERS = "%/:@!$&'()*+,;=~?"


@dataclass(frozen=True, slots=True)
class Url:
    """A checked http or https address."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an absolute URL.

        Raises:
            PermanentError: It is none that can be requested.
        """
        try:
            parts = urlsplit(text)
            host = (parts.hostname or "").encode("idna").decode()
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise PermanentError(f"the URL is not valid: {error}", code="HTTP_URL_INVALID") from error
        if not host or not port or parts.scheme not in _DEFAULT_PORTS:
            raise PermanentError("the URL must begin with http:// or https:// and a host", code="HTTP_URL_INVALID")
        if parts.username is not None or parts.password is not None:
            raise PermanentError("credentials belong in a header, not in the URL", code="HTTP_URL_INVALID")
        return cls(parts.scheme, host, port, _target(parts))

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be equal for two URLs to trust each other."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """What a Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Without the query, which may hold secrets."""
        return f"{self.scheme}://{self.host}:{self.port}{self.target.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; header names in lower case."""

    method: str
    url: Url
    headers: Mapping[str, str]
    body: bytes | IO[bytes] | None


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; header names in lower case, repeated ones joined."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Deadline:
    """A point on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Returns the seconds left.

        Raises:
            TimeoutError: None are.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def exchange(request: Request, allowed: AllowList, deadline: Deadline, sink: IO[bytes] | None = None) -> Response:
    """Sends a request and reads the whole response; the body of a success goes into `sink`, if there is one.

    Raises:
        TransientError: The network failed or the deadline has passed.
        PermanentError: The address is forbidden, the certificate is not valid, or the response is too large.
    """
    try:
        try:
            response = _exchange(request, allowed, deadline, sink)
        finally:
            deadline.remaining()  # a failure or a short body after it is its own doing
    except TimeoutError as error:
        raise TransientError(f"{request.url} did not answer in time", code="HTTP_TIMEOUT") from error
    except ssl.SSLCertVerificationError as error:
        raise PermanentError(f"{request.url}: {error.verify_message}", code="HTTP_CERTIFICATE_INVALID") from error
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{request.url}: {error or type(error).__name__}", code="HTTP_CONNECTION") from error
    except ValueError as error:
        raise PermanentError(f"the request is not valid: {error}", code="HTTP_REQUEST_INVALID") from error
    return response


def _exchange(request: Request, allowed: AllowList, deadline: Deadline, sink: IO[bytes] | None) -> Response:
    url = request.url
    client = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    with (
        connect(url.host, url.port, allowed, deadline.remaining) as plain,
        _cut_off_at(deadline, plain),
        _secured(plain, url) as connection,
        closing(client(url.host, url.port)) as conversation,
    ):
        conversation.sock = connection
        conversation.request(request.method, url.target, body=request.body, headers=dict(request.headers))
        answer = conversation.getresponse()
        if sink is not None and answer.status < _NOT_SUCCESS:
            shutil.copyfileobj(answer, sink, _COPIED_AT_A_TIME)
        body = answer.read(LARGEST_BODY_BYTES + 1)
    if len(body) > LARGEST_BODY_BYTES:
        raise PermanentError(f"the response is larger than {LARGEST_BODY_BYTES} bytes", code="HTTP_BODY_TOO_LARGE")
    if answer.length:
        raise http.client.IncompleteRead(body, answer.length)
    headers = {name.lower(): ", ".join(answer.headers.get_all(name, [])) for name in answer.headers}
    return Response(answer.status, answer.reason, headers, body)


def _secured(plain: socket.socket, url: Url) -> socket.socket:
    if url.scheme == "http":
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=url.host)


@contextmanager
def _cut_off_at(deadline: Deadline, connection: socket.socket) -> Generator[None]:
    """Ends all waiting on a connection at the deadline, however steadily something drips in until then."""
    connection.settimeout(None)
    twin = connection.dup()
    timer = threading.Timer(deadline.remaining(), _shut_down, [twin])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        twin.close()


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # the other side was faster
        connection.shutdown(socket.SHUT_RDWR)


def _target(parts: SplitResult) -> str:
    path = quote(parts.path or "/", safe=_URL_CHARACTERS)
    return f"{path}?{quote(parts.query, safe=_URL_CHARACTERS)}" if parts.query else path
