"""Uploads: a raw body that goes to the control plane as a stream of chunks, as fast as it takes them."""

import asyncio
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from towline_gateway import bodies, contract
from towline_gateway.caller import Caller
from towline_gateway.routes import Binding
from towline_gateway.unary import Answer

CHUNK_BYTES: Final = 64 * 1024
UPLOAD_SECONDS: Final = 600


class UploadEndpoint:
    """Answers the requests of one client-streaming binding."""

    __slots__ = ("_answer", "_body", "_call", "_class")

    def __init__(self, binding: Binding, channel: grpc.aio.Channel) -> None:
        method = binding.method
        self._answer = Answer(binding)
        self._body = binding.body
        self._class = contract.message_class(method.input_type)
        self._call: grpc.aio.StreamUnaryMultiCallable[Any, Any] = channel.stream_unary(
            contract.grpc_path(method),
            request_serializer=self._class.SerializeToString,
            response_deserializer=contract.message_class(method.output_type).FromString,
        )

    async def __call__(self, request: Request, values: tuple[str, ...]) -> Response:
        """Streams the body and returns the answer; a body that breaks off cancels the call, so nothing is stored."""
        bodies.require_media_type(request, bodies.OCTETS)
        call = self._call(metadata=Caller.of(request).metadata(), timeout=UPLOAD_SECONDS)
        try:
            await self._send(request, call)
            return self._answer.response(request, await call)
        finally:
            call.cancel()

    async def _send(self, request: Request, call: "grpc.aio.StreamUnaryCall[Any, Any]") -> None:
        try:
            async for piece in bodies.pieces(request, CHUNK_BYTES):
                await call.write(self._chunk(piece))
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the control plane has answered before the end; awaiting the call tells what

    def _chunk(self, piece: bytes) -> Message:
        return self._class(**{self._body: piece})
