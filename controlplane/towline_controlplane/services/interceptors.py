"""The one interceptor: every call is named, checked, told its caller, logged, and its errors put in one form.

Access comes from the method's option; a method without one is refused. Credentials are checked before the servicer
sees the call, and again before a stream's next item when the last check is some time ago.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final, Protocol, TypeAlias

import grpc
import structlog
from grpc import aio
from structlog.contextvars import bind_contextvars

from towline.v1.access_pb2 import ADMIN, AGENT, PUBLIC, USER
from towline_controlplane.api_keys import reaches
from towline_controlplane.errors import PermissionDenied, TowlineError, Unauthenticated
from towline_controlplane.identity import CredentialKind, Person
from towline_controlplane.ids import new_id
from towline_controlplane.model import AgentRecord, Role
from towline_controlplane.services import callers
from towline_controlplane.services.access import OPEN_SERVICES, AccessRules
from towline_controlplane.services.callers import Context
from towline_controlplane.services.open_streams import OpenStreams
from towline_controlplane.services.statuses import REQUEST_ID_KEY, abort

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_BEARER: Final = re.compile(r"[Bb]earer ([\x21-\x7e]+)")
_HEAR_OUT_SECONDS: Final = 10.0
_ANYBODY: Final = "anybody"

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior: TypeAlias = Callable[[Any, Context], Any]

_KINDS: Final[Mapping[tuple[bool, bool], tuple[str, Callable[..., Handler]]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}

log = structlog.get_logger(__name__)


class Identity(Protocol):
    """Recognises callers by what they present; raises Unauthenticated."""

    async def person_of(self, presented: str) -> Person:
        """Returns the user of an access token or API key."""
        ...

    async def agent_of(self, credential: str) -> AgentRecord:
        """Returns the agent of a credential."""
        ...


class CallInterceptor(aio.ServerInterceptor):
    """Stands before every method of the server. Servicers answer streams as async generators."""

    def __init__(
        self,
        identity: Identity,
        rules: AccessRules,
        streams: OpenStreams,
        recheck_seconds: float = 30.0,
    ) -> None:
        self._identity = identity
        self._rules = rules
        self._streams = streams
        self._recheck_seconds = recheck_seconds
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
            async with self._entered(method, context):
                return await behavior(request, context)

        return answer

    def _guard_upload(self, method: str, behavior: Behavior) -> Behavior:
        async def answer(requests: Any, context: Context) -> Any:
            async with self._entered(method, context, requests):
                return await behavior(requests, context)

        return answer

    def _guard_stream(self, method: str, behavior: Behavior) -> Behavior:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._entered(method, context) as caller_id:
                checked = time.monotonic()
                async with aclosing(self._streams.relay(caller_id, behavior(request, context))) as items:
                    async for item in items:
                        if time.monotonic() - checked >= self._recheck_seconds:
                            await self._identify(method, context)
                            checked = time.monotonic()
                        yield item

        return stream

    @asynccontextmanager
    async def _entered(
        self, method: str, context: Context, upload: AsyncIterator[Any] | None = None
    ) -> AsyncGenerator[str]:
        """Runs one call: yields its caller's id, turns what it raises into a status, and logs it."""
        request_id = _request_id(context)
        bind_contextvars(request_id=request_id, method=method)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        began, code = time.monotonic(), "CANCELLED"
        try:
            caller_id = await self._identify(method, context)
            bind_contextvars(caller_id=caller_id)
            yield caller_id
            code = "OK"
        except TowlineError as error:
            code = error.status
            if upload is not None:
                await _hear_out(upload)
            await abort(context, error, request_id)
        except Exception:
            code = "INTERNAL"
            log.exception("call failed")
            await abort(context, TowlineError(f"the server failed; its log has request {request_id}"), request_id)
        finally:
            if method in self._rules.mutations:
                log.info("call", code=code, milliseconds=round((time.monotonic() - began) * 1000, 1))

    async def _identify(self, method: str, context: Context) -> str:
        """Makes the caller known to the servicer and returns its id; raises unless it may call the method."""
        access = self._rules.access.get(method)
        if access == PUBLIC:
            return _ANYBODY
        if access == AGENT:
            agent = await self._identity.agent_of(_bearer(context))
            callers.enter_agent(agent)
            return agent.id
        if access not in (USER, ADMIN):
            raise PermissionDenied("nobody may call this method")
        person = await self._identity.person_of(_bearer(context))
        self._check_scope(method, person)
        if access == ADMIN and person.user.role is not Role.ADMIN:
            raise PermissionDenied("only an admin may do this")
        callers.enter_person(person)
        return person.user.id

    def _check_scope(self, method: str, person: Person) -> None:
        if person.credential.kind is not CredentialKind.API_KEY:
            return
        needed = self._rules.key_scopes.get(method)
        if needed is None:
            raise PermissionDenied("no API key may do this: sign in")
        if needed and not reaches(person.credential.scopes, needed):
            raise PermissionDenied(f"the API key lacks the scope {needed}")


async def _hear_out(upload: AsyncIterator[Any]) -> None:
    """Takes what a refused sender still sends, for some seconds: one that is cut off misses the reason."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_HEAR_OUT_SECONDS):
            async for _ in upload:
                pass


def _request_id(context: Context) -> str:
    given = _metadata(context, REQUEST_ID_KEY)
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else new_id()


def _bearer(context: Context) -> str:
    given = _metadata(context, "authorization")
    form = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if form is None:
        raise Unauthenticated("send one header `authorization: Bearer <token>`")
    return form.group(1)


def _metadata(context: Context, wanted: str) -> list[str]:
    pairs = context.invocation_metadata() or ()
    return [value for key, value in pairs if key == wanted and isinstance(value, str)]
