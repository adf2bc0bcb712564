"""Server streams as server-sent events.

A message is one event, or several in its field `batch`: `id` is its cursor, `event` the name of its payload field
(`event`, `line`), `data` the payload as JSON. A stream that is complete closes with `event: end`, whose data is the
field `end` of its last message if it has one; one that fails, with `event: error` and the usual error body. When the
gateway stops, the stream just breaks off, and the client goes on elsewhere with `Last-Event-ID`.
Nothing is sent before the control plane has accepted the call, so that a refusal keeps its HTTP status.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
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
    if len(names) != 1 or not _is_message(method, names[0]) or "cursor" not in method.output_type.fields_by_name:
        raise ValueError(f"{method.full_name}: a streamed message needs one payload message and a cursor")
    return method.output_type.fields_by_name[names[0]]


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
        message = await self._transcoder.message(request, values)
        call = self._call(message, metadata=caller.metadata())
        first = asyncio.ensure_future(call.read())
        try:
            await _accepted(call, first)
        except BaseException:
            call.cancel()
            raise
        return EventStream(call, first, self._payload, caller.request_id, self._stopping)


async def _accepted(call: Call, first: asyncio.Future[Any]) -> None:
    try:
        async with asyncio.timeout(ACCEPT_SECONDS):
            await call.initial_metadata()
    except TimeoutError:
        raise problems.deadline_exceeded() from None
    await asyncio.wait({first}, timeout=_REFUSAL_SECONDS)
    if first.done():
        first.result()


class EventStream:
    """An answer that plays an accepted stream, at the pace of its reader, until one of the two ends leaves."""

    __slots__ = ("_call", "_name", "_reading", "_request_id", "_stopping", "_write")

    def __init__(
        self, call: Call, first: asyncio.Future[Any], payload: FieldDescriptor, request_id: str, stopping: asyncio.Event
    ) -> None:
        assert payload.message_type is not None
        self._call = call
        self._reading = first
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
            self._call.cancel()

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
        end = "{}"
        try:
            while True:
                await asyncio.wait(
                    {self._reading, leaving}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if leaving.done():
                    return
                if not self._reading.done():
                    yield _HEARTBEAT
                    continue
                message: Any = self._reading.result()
                if message is grpc.aio.EOF:
                    break
                if _has_end(message):
                    end = encode(message.end)
                else:
                    yield self._events(getattr(message, "batch", ()) or (message,))
                self._reading = asyncio.ensure_future(self._call.read())
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
