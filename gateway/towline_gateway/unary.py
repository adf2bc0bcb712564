"""Plain calls: one request message, one answer."""

from typing import Any, Final

import grpc
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from towline_gateway import bodies, contract
from towline_gateway.caller import Caller
from towline_gateway.codec import Json, encode, render
from towline_gateway.routes import Binding, field_at
from towline_gateway.transcode import Transcoder

UNARY_SECONDS: Final = 30


class UnaryEndpoint:
    """Answers the requests of one unary binding."""

    __slots__ = ("_answer", "_call", "_transcoder")

    def __init__(self, binding: Binding, channel: grpc.aio.Channel) -> None:
        method = binding.method
        self._answer = Answer(binding)
        self._transcoder = Transcoder(binding)
        self._call: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = channel.unary_unary(
            contract.grpc_path(method),
            request_serializer=contract.message_class(method.input_type).SerializeToString,
            response_deserializer=contract.message_class(method.output_type).FromString,
        )

    async def __call__(self, request: Request, values: tuple[str, ...]) -> Response:
        """Calls the method and returns its answer; raises what the call ends with."""
        metadata = Caller.of(request).metadata()
        message = await self._transcoder.message(request, values)
        return self._answer.response(await self._call(message, metadata=metadata, timeout=UNARY_SECONDS))


class Answer:
    """Turns response messages of one binding into HTTP answers."""

    __slots__ = ("_field", "_status")

    def __init__(self, binding: Binding) -> None:
        name = binding.response_body
        self._field = field_at(binding.method.output_type, name).json_name if name else ""
        self._status = binding.success

    def response(self, message: Message) -> Response:
        """The message as JSON, or the one field of it that the binding names."""
        tree: Json = encode(message)
        if self._field and isinstance(tree, dict):
            tree = tree.get(self._field, {})
        return Response(render(tree), self._status, media_type=bodies.JSON)
