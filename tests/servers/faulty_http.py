"""A way to an HTTP server on which the next requests meet faults, one each."""

import contextlib
import http.client
import threading
from collections import defaultdict, deque
from collections.abc import Generator
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_NOT_PASSED_ON = frozenset({"connection", "transfer-encoding", "keep-alive", "expect"})


class Fault(Enum):
    """What becomes of a request."""

    FAIL = "answered with 500, and never seen by the server"
    FORGET = "done by the server, but answered with 500"
    MISSING = "answered as if there were no such object"
    HANG = "not answered"
    CUT = "answered, but the connection ends in the middle of the body"
    CORRUPT = "another byte arrives at the server than was sent"
    DAMAGED = "another byte is answered than the server sent"


class FaultyHttp:
    """A proxy to a server at `host:port`."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.seen: list[str] = []
        """The method of each request so far."""
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._healed = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def next(self, method: str, *faults: Fault) -> None:
        """Lets the next requests of a method meet faults."""
        self._faults[method].extend(faults)

    @contextlib.contextmanager
    def running(self) -> Generator["FaultyHttp"]:
        """Serves meanwhile."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._healed.set()
            self._http.shutdown()
            thread.join()
            self._http.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Passes a request on, or not."""
        method = request.command
        self.seen.append(method)
        fault = self._faults[method].popleft() if self._faults[method] else None
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        request.close_connection = fault is not None
        if fault is Fault.HANG:
            self._healed.wait()
        elif fault in (Fault.FAIL, Fault.MISSING):
            _refuse(request, 500 if fault is Fault.FAIL else 404)
        else:
            status, headers, data = self._forward(request, _flipped(body) if fault is Fault.CORRUPT else body)
            if fault is Fault.FORGET:
                _refuse(request, 500)
                return
            data = _flipped(data) if fault is Fault.DAMAGED else data
            _send(request, status, headers, data, data[: len(data) // 2] if fault is Fault.CUT else data)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        with contextlib.closing(http.client.HTTPConnection(self.server)) as connection:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in _NOT_PASSED_ON:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()


def _handler(proxy: FaultyHttp) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            proxy.answer(self)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names that the base looks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base
            pass

    return Handler


def _refuse(request: BaseHTTPRequestHandler, status: int) -> None:
    code = "InternalError" if status == 500 else "NoSuchKey"
    text = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
    _send(request, status, {"Content-Type": "application/xml"}, text, text)


def _send(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], whole: bytes, part: bytes) -> None:
    request.send_response_only(status)
    for name, value in headers.items():
        if name.lower() not in _NOT_PASSED_ON | {"content-length"}:
            request.send_header(name, value)
    length = headers.get("Content-Length", "0") if request.command == "HEAD" else str(len(whole))
    request.send_header("Content-Length", length)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(part)


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:] if data else data
