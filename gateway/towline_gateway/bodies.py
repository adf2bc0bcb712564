"""Request bodies: read with a bound on size and time, and only in the media type that the route takes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request

from towline_gateway import problems

MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
DOCUMENT_SECONDS: Final = 60
IDLE_SECONDS: Final = 30

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"


async def read_document(request: Request) -> bytes:
    """Returns the whole body; raises a 413 problem beyond `MAX_DOCUMENT_BYTES` and a 408 one when it dawdles."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_DOCUMENT_BYTES:
        raise problems.body_too_large(MAX_DOCUMENT_BYTES)
    body = bytearray()
    try:
        async with asyncio.timeout(DOCUMENT_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise problems.body_too_large(MAX_DOCUMENT_BYTES)
    except TimeoutError:
        raise problems.body_too_slow() from None
    return bytes(body)


async def pieces(request: Request, size: int) -> AsyncIterator[bytes]:
    """Yields the body as it arrives, in pieces of at most `size` bytes; raises a 408 problem when it stalls."""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise problems.body_too_slow() from None
        if chunk is None:
            return
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]


def require_media_type(request: Request, wanted: str) -> None:
    """Raises a 415 problem unless the body is plain (not compressed) and of the wanted type."""
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.lower().replace(" ", "").replace('"', "")
    plain = request.headers.get("content-encoding", "identity").lower() == "identity"
    if media_type.strip().lower() != wanted or charset not in {"", "charset=utf-8"} or not plain:
        raise problems.unsupported_media_type(wanted)
