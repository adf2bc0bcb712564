"""Server streams as server-sent events.

A message is one event, or several in its field `batch`: `id` is its cursor, `event` the name of its payload field
(`event`, `line`), `data` the payload as JSON. A stream that is complete closes with `event: end`, whose data is the
field `end` of its last message if it has one; one that fails, with `event: error` and the usual error body. When a
control plane goes away, the gateway goes on at another one, behind the last cursor; when the gateway itself stops, the
stream just breaks off, and the client goes on elsewhere with `Last-Event-ID`.
Nothing is sent before the control plane has accepted the call, so that a refusal keeps its HTTP status.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import grpc
import structlog
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from towline_gateway import contract, problems
from towline_gateway.caller import Caller
from towline_gateway.codec import encode, message_writer, text_of
from towline_gateway.routes import Binding
from towline_gateway.transcode import Transcoder

ACCEPT_SECONDS: Final = 30
HEARTBEAT_SECONDS: Final = 15
RETRY_SECONDS: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
"""How long it waits before each attempt to go on elsewhere; after the last one the reader is told."""
RELIABLE_SECONDS: Final = 60
"""A call that was open for so long counts as a success."""
# gRPC hands out the headers and the status of a refusal one after the other, although they are one frame.
_REFUSAL_SECONDS: Final = 0.1

_OPENING: Final = b"retry: 1000\n\n"
_HEARTBEAT: Final = b": still here\n\n"
_NOT_PAYLOAD: Final = ("cursor", "end", "batch")
_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]

Call = grpc.aio.UnaryStreamCall[Any, Any]
_log = structlog.stdlib.get_logger(__name__)


def payload_field(method: MethodDescriptor) -> FieldDescriptor:
    """The field of a streamed message that is the event; raises `ValueError` if more than one could be."""
    names = [field.name for field in method.output_type.fields if field.name not in _NOT_PAYLOAD]
    if len(names) != 1 or not _is_message(method, names[0]) or not _both_have_cursors(method):
        raise ValueError(f"{method.full_name}: a streamed message needs one payload message and a cursor")
    return method.output_type.fields_by_name[names[0]]


def _both_have_cursors(method: MethodDescriptor) -> bool:
    return all("cursor" in each.fields_by_name for each in (method.input_type, method.output_type))


def _is_message(method: MethodDescriptor, name: str) -> bool:
    field = method.output_type.fields_by_name[name]
    return field.message_type is not None and not field.is_repeated


class StreamEndpoint:
    """Answers the requests of one server-streaming binding; `stopping` ends all its streams."""

    __slots__ = ("_call", "_payload", "_stopping", "_transcoder")

    def __init__(self, binding: Binding, channel: grpc.aio.Channel, stopping: asyncio.Event) -> None:
        method = binding.method
        self._payload = payload_field(method)
        self._stopping = stopping
        self._transcoder = Transcoder(binding)
        self._call: grpc.aio.UnaryStreamMultiCallable[Any, Any] = channel.unary_stream(
            contract.grpc_path(method),
            request_serializer=contract.message_class(method.input_type).SerializeToString,
            response_deserializer=contract.message_class(method.output_type).FromString,
        )

    async def __call__(self, request: Request, values: tuple[str, ...]) -> "EventStream":
        """Opens the stream and returns the answer that plays it; raises what the control plane refuses with."""
        caller = Caller.of(request)
        message: Any = await self._transcoder.message(request, values)

        def reopen(cursor: str) -> Call:
            message.cursor = cursor
            return self._call(message, metadata=caller.metadata())

        call = reopen(message.cursor)
        first = asyncio.ensure_future(call.read())
        try:
            await _accepted(call, first)
        except BaseException:
            call.cancel()
            raise
        source = _Source(call, first, reopen, message.cursor)
        return EventStream(source, self._payload, caller.request_id, self._stopping)


async def _accepted(call: Call, first: asyncio.Future[Any]) -> None:
    try:
        async with asyncio.timeout(ACCEPT_SECONDS):
            await call.initial_metadata()
    except TimeoutError:
        raise problems.deadline_exceeded() from None
    await asyncio.wait({first}, timeout=_REFUSAL_SECONDS)
    if first.done():
        first.result()


class _Source:
    """The messages of an accepted call; of another one like it, from behind the last cursor, when its server goes."""

    __slots__ = ("_call", "_cursor", "_failures", "_opened_at", "_reopen", "reading")

    def __init__(self, call: Call, first: asyncio.Future[Any], reopen: Callable[[str], Call], cursor: str) -> None:
        self._call = call
        self._reopen = reopen
        self._cursor = cursor
        self._failures = 0
        self._opened_at = time.monotonic()
        self.reading = first

    def take(self) -> Any:
        """Returns the message that was read and reads on; None if the call has to be made again, which it is.

        Raises what the call has ended with.
        """
        try:
            message: Any = self.reading.result()
        except grpc.aio.AioRpcError as error:
            delay = self._next_delay(error)
            if delay is None:
                raise
            self.reading = asyncio.ensure_future(self._again(delay))
            return None
        if message is not grpc.aio.EOF:
            self._cursor = message.cursor or self._cursor
            self._failures = 0
            self.reading = asyncio.ensure_future(self._call.read())
        return message

    def close(self) -> None:
        """Ends the call."""
        self.reading.cancel()
        self._call.cancel()

    def _next_delay(self, error: grpc.aio.AioRpcError) -> float | None:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return None
        if time.monotonic() - self._opened_at > RELIABLE_SECONDS:
            self._failures = 0
        self._failures += 1
        return RETRY_SECONDS[self._failures - 1] if self._failures <= len(RETRY_SECONDS) else None

    async def _again(self, delay: float) -> Any:
        await asyncio.sleep(delay)
        self._call = self._reopen(self._cursor)
        self._opened_at = time.monotonic()
        return await self._call.read()


class EventStream:
    """An answer that plays an accepted stream, at the pace of its reader, until one of the two ends leaves."""

    __slots__ = ("_name", "_request_id", "_source", "_stopping", "_write")

    def __init__(self, source: _Source, payload: FieldDescriptor, request_id: str, stopping: asyncio.Event) -> None:
        assert payload.message_type is not None
        self._source = source
        self._name = payload.name
        self._write = message_writer(payload.message_type)
        self._request_id = request_id
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events; the call is cancelled when it returns, whatever the reason."""
        leaving = asyncio.ensure_future(self._leaving(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] != "HEAD":
                await send({"type": "http.response.body", "body": _OPENING, "more_body": True})
                async for frame in self._frames(leaving):
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            self._source.close()

    async def _leaving(self, receive: Receive) -> None:
        """Returns when the client disconnects or the gateway stops."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        disconnected = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({stopping, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            disconnected.cancel()

    async def _frames(self, leaving: asyncio.Future[None]) -> AsyncIterator[bytes]:
        end, source = "{}", self._source
        try:
            while True:
                await asyncio.wait(
                    {source.reading, leaving}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if leaving.done():
                    return
                if not source.reading.done():
                    yield _HEARTBEAT
                    continue
                message = source.take()
                if message is grpc.aio.EOF:
                    break
                if message is None:
                    continue
                if _has_end(message):
                    end = encode(message.end)
                else:
                    yield self._events(getattr(message, "batch", ()) or (message,))
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader is told by an event
            yield self._failure(error)
            return
        yield _event("end", end)

    def _events(self, messages: Iterable[Any]) -> bytes:
        """The events of several messages, to be sent in one piece."""
        name, write = self._name, self._write
        middle = f"\nevent: {name}\ndata: "
        return "".join([f"id: {each.cursor}{middle}{write(getattr(each, name))}\n\n" for each in messages]).encode()

    def _failure(self, error: Exception) -> bytes:
        problem = problems.of(error)
        if problem.code == 500:
            _log.error("stream failed", request_id=self._request_id, exc_info=error)
        return _event("error", text_of(problem.body(self._request_id)))


def _has_end(message: Message) -> bool:
    return "end" in message.DESCRIPTOR.fields_by_name and message.HasField("end")


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
