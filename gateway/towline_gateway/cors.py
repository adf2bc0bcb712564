"""Pages of other origins: none may read what the API answers, but those that the operator names.

Credentials are no part of it: the API knows no cookies, and a token is sent by whoever has it.
"""

import re
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_METHODS: Final = "DELETE, GET, HEAD, PATCH, POST, PUT"
_REQUEST_HEADERS: Final = ", ".join(
    (
        *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "If-Range"),
        *("Last-Event-ID", "Range", "X-Request-Id"),
    )
)
_ANSWER_HEADERS: Final = (
    "Accept-Ranges, Allow, Content-Disposition, Content-Range, ETag, Retry-After, WWW-Authenticate, X-Request-Id"
)
_REMEMBERED_SECONDS: Final = 600


def parse_origins(text: str) -> frozenset[str]:
    """Returns the origins of a list with commas; raises `ValueError` on one that no browser would send."""
    origins = frozenset(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin such as https://console.example.com (in lower case, without a path)"
            )
    return origins


def checked(text: str) -> str:
    """Returns the list as it is; raises `ValueError` when it is none."""
    parse_origins(text)
    return text


class Cors:
    """Wraps an application; without origins it changes nothing."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, or answers the question of a browser whether it may be sent."""
        if scope["type"] != "http" or not self._origins:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        allowed = origin if origin in self._origins else ""
        if allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _allow(allowed, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(raw=message["headers"])
                answer.add_vary_header("Origin")
                if allowed:
                    answer["Access-Control-Allow-Origin"] = allowed
                    answer["Access-Control-Expose-Headers"] = _ANSWER_HEADERS
                    answer["Cross-Origin-Resource-Policy"] = "cross-origin"
            await send(message)

        await self._app(scope, receive, tell)


async def _allow(origin: str, send: Send) -> None:
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": _REQUEST_HEADERS,
        "Access-Control-Max-Age": str(_REMEMBERED_SECONDS),
        "Vary": "Origin",
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 204, "headers": raw})
    await send({"type": "http.response.body", "body": b""})
