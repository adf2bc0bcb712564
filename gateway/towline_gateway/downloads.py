"""Downloads: the bytes of one file, from a server stream whose `response_body` is a bytes field.

The first message says what the file is (its one message field: name, size, digest, type), the others hold its bytes.
`Range`, `If-Range` and `If-None-Match` work as in RFC 9110, with the digest as `ETag`; of several ranges the whole is
sent. A file is always an attachment. Only one message at a time is in memory, whatever the size.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from towline_gateway import contract, etags, problems
from towline_gateway.caller import Caller, Metadata
from towline_gateway.ranges import ByteRange, parse_range
from towline_gateway.routes import Binding
from towline_gateway.transcode import Transcoder

ACCEPT_SECONDS: Final = 30
_WANTED: Final = frozenset({"name", "size_bytes", "digest", "content_type"})
_PLAIN: Final = re.compile(r"[^A-Za-z0-9._-]")

Call = grpc.aio.UnaryStreamCall[Any, Any]


class BrokenOff(Exception):
    """The file ended before its size: the connection must not look as if it were whole."""


def about_field(method: MethodDescriptor) -> FieldDescriptor:
    """The field of the first message that says what the file is; raises `ValueError` if there is none."""
    for field in method.output_type.fields:
        if field.message_type and set(field.message_type.fields_by_name) >= _WANTED:
            return field
    raise ValueError(f"{method.full_name}: a download begins with a message that has {sorted(_WANTED)}")


class DownloadEndpoint:
    """Answers the requests of one binding."""

    __slots__ = ("_about", "_body", "_call", "_transcoder")

    def __init__(self, binding: Binding, channel: grpc.aio.Channel) -> None:
        method = binding.method
        self._about = about_field(method).name
        self._body = binding.response_body
        self._transcoder = Transcoder(binding)
        self._call: grpc.aio.UnaryStreamMultiCallable[Any, Any] = channel.unary_stream(
            contract.grpc_path(method),
            request_serializer=contract.message_class(method.input_type).SerializeToString,
            response_deserializer=contract.message_class(method.output_type).FromString,
        )

    async def __call__(self, request: Request, values: tuple[str, ...]) -> ASGIApp:
        """Opens the file and returns the answer; raises what the control plane refuses with, or a 416 problem."""
        metadata = Caller.of(request).metadata()
        message = await self._transcoder.message(request, values)
        wanted = parse_range(request.headers.get("range")) if request.method == "GET" else None
        call, about = await self._open(message, metadata, wanted)
        try:
            if wanted is not None and request.headers.get("if-range", _etag(about)) != _etag(about):
                call.cancel()
                wanted = None
                call, about = await self._open(message, metadata, wanted)
            return self._answer(request, call, about, wanted)
        except BaseException:
            call.cancel()
            raise

    async def _open(self, message: Any, metadata: Metadata, wanted: ByteRange | None) -> tuple[Call, Any]:
        message.offset, message.limit = (wanted.offset, wanted.limit) if wanted else (0, 0)
        call = self._call(message, metadata=metadata)
        try:
            async with asyncio.timeout(ACCEPT_SECONDS):
                first: Any = await call.read()
        except TimeoutError:
            call.cancel()
            raise problems.deadline_exceeded() from None
        except BaseException:
            call.cancel()
            raise
        if first is grpc.aio.EOF:
            raise problems.defect()
        return call, getattr(first, self._about)

    def _answer(self, request: Request, call: Call, about: Any, wanted: ByteRange | None) -> ASGIApp:
        headers = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
            "Content-Disposition": _disposition(about.name),
            "ETag": _etag(about),
        }
        if etags.matches(request.headers.get("if-none-match", ""), about.digest):
            call.cancel()
            return Response(status_code=304, headers=headers)
        span = wanted.within(about.size_bytes) if wanted else (0, about.size_bytes)
        if span is None:
            raise problems.range_not_satisfiable(about.size_bytes)
        begin, end = span
        if wanted:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{about.size_bytes}"
        headers |= {"Content-Type": about.content_type, "Content-Length": str(end - begin)}
        return Download(call, self._body, 206 if wanted else 200, headers)


class Download:
    """An answer that plays an opened stream at the pace of its reader, until one of the two ends leaves."""

    __slots__ = ("_body", "_call", "_headers", "_status")

    def __init__(self, call: Call, body: str, status: int, headers: dict[str, str]) -> None:
        self._call = call
        self._body = body
        self._status = status
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the bytes; the call is cancelled when it returns, whatever the reason."""
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self._headers.items()]
            await send({"type": "http.response.start", "status": self._status, "headers": headers})
            if scope["method"] != "HEAD":
                async for data in self._pieces(int(self._headers["Content-Length"]), leaving):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            self._call.cancel()

    async def _pieces(self, left: int, leaving: asyncio.Future[None]) -> AsyncIterator[bytes]:
        while left:
            reading: asyncio.Future[Any] = asyncio.ensure_future(self._call.read())
            await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                return
            message: Message | Any = reading.result()
            if message is grpc.aio.EOF:
                raise BrokenOff(f"{left} bytes are missing")
            data: bytes = getattr(message, self._body)
            left -= len(data)
            yield data


def _etag(about: Any) -> str:
    return etags.quoted(about.digest)


def _disposition(name: str) -> str:
    last = name.rpartition("/")[2]
    return f"attachment; filename=\"{_PLAIN.sub('_', last)}\"; filename*=UTF-8''{quote(last, safe='')}"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
