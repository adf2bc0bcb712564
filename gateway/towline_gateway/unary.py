"""Plain calls: one request message, one answer."""

from typing import Any, Final

import grpc
from starlette.requests import Request
from starlette.responses import Response

from towline_gateway import bodies, contract, etags
from towline_gateway.caller import Caller
from towline_gateway.codec import encode
from towline_gateway.routes import Binding, field_at
from towline_gateway.transcode import Transcoder

UNARY_SECONDS: Final = 30
_SAFE: Final = frozenset({"GET", "HEAD"})


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
        return self._answer.response(request, await self._call(message, metadata=metadata, timeout=UNARY_SECONDS))


class Answer:
    """Turns response messages of one binding into HTTP answers."""

    __slots__ = ("_has_etag", "_name", "_status")

    def __init__(self, binding: Binding) -> None:
        answer = binding.method.output_type
        self._name = binding.response_body
        self._has_etag = etags.has_etag(field_at(answer, self._name).message_type if self._name else answer)
        self._status = binding.success

    def response(self, request: Request, message: Any) -> Response:
        """The message as JSON, or the one below it that the binding names; 304 when the client has it already."""
        headers: dict[str, str] = {}
        resource: Any = getattr(message, self._name) if self._name else message
        if self._has_etag and resource.etag:
            headers = {"ETag": etags.quoted(resource.etag), "Cache-Control": "private, no-cache"}
            if request.method in _SAFE and etags.matches(request.headers.get("if-none-match", ""), resource.etag):
                return Response(status_code=304, headers=headers)
        text = encode(resource) if not self._name or message.HasField(self._name) else "{}"
        return Response(text, self._status, headers, bodies.JSON)
