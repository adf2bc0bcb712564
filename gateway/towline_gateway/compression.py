"""Answers compressed with gzip, for clients that take it.

Only whole answers to GET, of text, from 1 KiB on: streams must not wait in a compressor, files are what they are, and
what a POST answers may be a secret, whose length would tell of it beside text that an attacker chose (BREACH).
The tag of a compressed answer is another one, as RFC 9110 wants it; `etags` knows the ending.
"""

import asyncio
import gzip
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from towline_gateway import etags

MIN_BYTES: Final = 1_024
_LEVEL: Final = 5
_IN_THREAD_BYTES: Final = 64 * 1_024
_TYPES: Final = frozenset({"application/json", "text/css", "text/html", "text/javascript"})


class Compression:
    """Wraps an application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}:
            send = _Answer(send, takes_gzip(Headers(scope=scope).get("accept-encoding", ""))).send
        await self._app(scope, receive, send)


def takes_gzip(header: str) -> bool:
    """Tells whether an `Accept-Encoding` header allows gzip."""
    weights: dict[str, bool] = {}
    for part in header.lower().split(","):
        coding, _, parameter = part.partition(";")
        weights[coding.strip()] = parameter.replace(" ", "").rstrip("0").rstrip(".") not in {"q=", "q=0"}
    return weights.get("gzip", weights.get("*", False))


class _Answer:
    """One answer; holds its head back until it knows whether the body is whole."""

    __slots__ = ("_head", "_send", "_takes_gzip")

    def __init__(self, send: Send, takes: bool) -> None:
        self._send = send
        self._takes_gzip = takes
        self._head: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message if _is_text(message) else None
            if self._head is None:
                await self._send(message)
            return
        if self._head is not None:
            head, self._head = self._head, None
            message = await self._compressed(head, message)
            await self._send(head)
        await self._send(message)

    async def _compressed(self, head: Message, message: Message) -> Message:
        """The body, compressed if it is worth it; tells so in the head."""
        headers = MutableHeaders(raw=head["headers"])
        headers.add_vary_header("Accept-Encoding")
        body: bytes = message.get("body", b"")
        if message.get("more_body") or len(body) < MIN_BYTES or not self._takes_gzip:
            return message
        if len(body) < _IN_THREAD_BYTES:
            body = gzip.compress(body, _LEVEL, mtime=0)
        else:
            body = await asyncio.to_thread(gzip.compress, body, _LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(len(body))
        if "ETag" in headers:
            headers["ETag"] = etags.of_gzip(headers["ETag"])
        return {**message, "body": body}


def _is_text(head: Message) -> bool:
    headers = Headers(raw=head["headers"])
    media_type = headers.get("content-type", "").partition(";")[0]
    return head["status"] == 200 and media_type in _TYPES and "content-encoding" not in headers
