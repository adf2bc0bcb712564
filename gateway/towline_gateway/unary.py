"""Plain calls: one request message, one answer."""

from typing import Any, Final

import grpc
from starlette.requests import Request
from starlette.responses import Response

from towline_gateway import bodies, contract, etags
from towline_gateway.caller import Caller
from towline_gateway.codec import Json, encode, render
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

    __slots__ = ("_field", "_has_etag", "_status")

    def __init__(self, binding: Binding) -> None:
        name, answer = binding.response_body, binding.method.output_type
        field = field_at(answer, name) if name else None
        self._field = field
        self._has_etag = etags.has_etag(field.message_type if field else answer)
        self._status = binding.success

    def response(self, request: Request, message: Any) -> Response:
        """The message as JSON, or the one field of it that the binding names; 304 when the client has it already."""
        headers: dict[str, str] = {}
        if self._has_etag and (tag := self._etag(message)):
            headers = {"ETag": etags.quoted(tag), "Cache-Control": "private, no-cache"}
            if request.method in _SAFE and etags.matches(request.headers.get("if-none-match", ""), tag):
                return Response(status_code=304, headers=headers)
        tree: Json = encode(message)
        if self._field and isinstance(tree, dict):
            tree = tree.get(self._field.json_name, {})
        return Response(render(tree), self._status, headers, bodies.JSON)

    def _etag(self, message: Any) -> str:
        return getattr(getattr(message, self._field.name) if self._field else message, etags.FIELD)
