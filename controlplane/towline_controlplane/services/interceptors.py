"""The one interceptor: every call is named, let in or refused, kept record of, and its errors put in one form.

Who may call is the gate's affair; that streams end with their credentials, the wardens'.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import grpc
import structlog
from grpc import aio
from structlog.contextvars import bind_contextvars

from towline_controlplane.errors import BadCredentials, RateLimited, TowlineError
from towline_controlplane.ids import new_id
from towline_controlplane.services.access import OPEN_SERVICES
from towline_controlplane.services.addresses import Addresses
from towline_controlplane.services.call_records import CallRecorder
from towline_controlplane.services.callers import Context, metadata_of
from towline_controlplane.services.gate import Gate, OpenCall
from towline_controlplane.services.statuses import REQUEST_ID_KEY, abort
from towline_controlplane.services.wardens import Wardens

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HEAR_OUT_SECONDS: Final = 10.0

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior: TypeAlias = Callable[[Any, Context], Any]

_KINDS: Final[Mapping[tuple[bool, bool], tuple[str, Callable[..., Handler]]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}

log = structlog.get_logger(__name__)


class CallInterceptor(aio.ServerInterceptor):
    """Stands before every method of the server. Servicers answer streams as async generators."""

    def __init__(self, gate: Gate, wardens: Wardens, recorder: CallRecorder, addresses: Addresses) -> None:
        self._gate = gate
        self._wardens = wardens
        self._recorder = recorder
        self._addresses = addresses
        self._guarded: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Returns the method's handler behind the guard; the same one for every call of it."""
        method = handler_call_details.method
        found = self._guarded.get(method)
        if found is not None:
            return found
        handler = await continuation(handler_call_details)
        # A method that does not exist has no handler: gRPC answers UNIMPLEMENTED.
        if handler is None or method.split("/")[1] in OPEN_SERVICES:
            return handler
        guarded = self._guarded[method] = self._guard(method, handler)
        return guarded

    def _guard(self, method: str, handler: Handler) -> Handler:
        kind, factory = _KINDS[handler.request_streaming, handler.response_streaming]
        behavior: Behavior = getattr(handler, kind)
        wraps = {"unary_unary": self._guard_answer, "stream_unary": self._guard_upload}
        wrap = wraps.get(kind, self._guard_stream)
        return factory(wrap(method, behavior), handler.request_deserializer, handler.response_serializer)

    def _guard_answer(self, method: str, behavior: Behavior) -> Behavior:
        async def answer(request: Any, context: Context) -> Any:
            async with self._entered(method, context) as call:
                call.request = request
                call.answer = await behavior(request, context)
            return call.answer

        return answer

    def _guard_upload(self, method: str, behavior: Behavior) -> Behavior:
        async def answer(requests: Any, context: Context) -> Any:
            async with self._entered(method, context, requests) as call, self._wardens.watching(call, context):
                call.answer = await behavior(self._wardens.checked(requests), context)
            return call.answer

        return answer

    def _guard_stream(self, method: str, behavior: Behavior) -> Behavior:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with (
                self._entered(method, context) as call,
                self._wardens.watching(call, context),
                aclosing(self._wardens.streams.relay(call.caller_id, behavior(request, context))) as items,
            ):
                async for item in items:
                    yield item

        return stream

    @asynccontextmanager
    async def _entered(
        self, method: str, context: Context, upload: AsyncIterator[Any] | None = None
    ) -> AsyncGenerator[OpenCall]:
        """Runs one call: yields what is known of it, turns what it raises into a status, and keeps record of it."""
        call = OpenCall(method, _request_id(context), self._addresses.of(context))
        bind_contextvars(request_id=call.request_id, method=method)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        began = time.monotonic()
        try:
            await self._gate.admit(call, context)
            bind_contextvars(caller_id=call.caller_id)
            yield call
            call.code = "OK"
            await self._recorder.record(call)
        except TowlineError as error:
            call.code = error.status
            if isinstance(error, BadCredentials):
                call.user_id = call.user_id or error.user_id
            if isinstance(error, RateLimited):  # else floods would go on in the audit log
                call.is_accountable = False
            if upload is not None:
                await _hear_out(upload)
            await self._recorder.record(call)
            await abort(context, error, call.request_id)
        except Exception:
            call.code = "INTERNAL"
            log.exception("call failed")
            await self._recorder.record(call)
            error = TowlineError(f"the server failed; its log has request {call.request_id}")
            await abort(context, error, call.request_id)
        finally:
            self._recorder.close(call, time.monotonic() - began)


async def _hear_out(upload: AsyncIterator[Any]) -> None:
    """Takes what a refused sender still sends, for some seconds: one that is cut off misses the reason."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_HEAR_OUT_SECONDS):
            async for _ in upload:
                pass


def _request_id(context: Context) -> str:
    given = metadata_of(context, REQUEST_ID_KEY)
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else new_id()
