"""What every answer has in common: request id, security headers, errors as problems, one line in the log.

The one place where an exception becomes an answer. Refuses to log a query string, a header or a body.
"""

import logging
import time
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from towline_gateway import problems
from towline_gateway.caller import request_id_of

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_QUIET_PATHS: Final = frozenset({"/healthz", "/readyz"})
_log = structlog.stdlib.get_logger(__name__)


class Envelope:
    """Wraps an application; nothing that it raises before its answer has begun goes further."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = 499
        except Exception as error:
            if exchange.status:
                raise
            await exchange.answer(error, receive)
        finally:
            exchange.log()


class _Exchange:
    """One request and the state of its answer; `status` is 0 until the answer begins."""

    __slots__ = ("_scope", "_send", "_started", "request_id", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._started = time.perf_counter()
        self.request_id = request_id_of(Headers(scope=scope))
        self.status = 0
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        """Passes the answer on, with the common headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def answer(self, error: Exception, receive: Receive) -> None:
        """Answers with the problem that the exception shows."""
        problem = problems.of(error)
        if problem.code == 500:
            _log.error("request failed", request_id=self.request_id, exc_info=error)
        await problem.response(self.request_id)(self._scope, receive, self.send)

    def log(self) -> None:
        """Writes the line of the finished request."""
        _log.log(
            logging.DEBUG if self._scope["path"] in _QUIET_PATHS else logging.INFO,
            "request",
            method=self._scope["method"],
            path=self._scope["path"],
            status=self.status,
            milliseconds=round((time.perf_counter() - self._started) * 1000, 1),
            request_id=self.request_id,
        )
