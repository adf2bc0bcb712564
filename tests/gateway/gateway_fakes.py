"""A control plane for the gateway's tests: a real gRPC server that answers what a test tells it to.

Every method of the contract exists and answers its empty message; a test replaces the methods it is about.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeAlias

import grpc
import httpx
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from towline_gateway import contract
from towline_gateway.app import build_app
from towline_gateway.control_plane import connect
from towline_gateway.server import Server, address_of, listen

PATIENCE = 30
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behaviour = Callable[[Any, Context], Any]
P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs an async test to its end in a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE * 2):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


def answering(message: Message) -> Behaviour:
    """Always answers the same message."""

    async def answer(request: Any, context: Context) -> Message:
        return message

    return answer


def streaming(*messages: Message) -> Behaviour:
    """Streams the messages and ends."""

    async def stream(request: Any, context: Context) -> AsyncIterator[Message]:
        for message in messages:
            yield message

    return stream


async def refuse(
    context: Context,
    code: grpc.StatusCode,
    reason: str = "",
    message: str = "No.",
    violations: tuple[tuple[str, str], ...] = (),
    retry_seconds: float | None = None,
) -> None:
    """Ends a call the way the control plane does."""
    details: list[Message] = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="towline.dev"))
    if violations:
        found = [error_details_pb2.BadRequest.FieldViolation(field=name, description=text) for name, text in violations]
        details.append(error_details_pb2.BadRequest(field_violations=found))
    if retry_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(retry_seconds * 1000))
        details.append(retry)
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = PackedAny()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort_with_status(rpc_status.to_status(status))  # pyright: ignore[reportUnknownMemberType]


@dataclass(slots=True)
class Received:
    """A call that arrived."""

    method: str
    request: Any
    metadata: dict[str, Any]
    seconds_left: float


@dataclass(slots=True)
class FakeControlPlane:
    """What the methods do (`on`) and what arrived (`calls`)."""

    on: dict[str, Behaviour] = field(default_factory=dict[str, Behaviour])
    calls: list[Received] = field(default_factory=list[Received])
    health: Any = SERVING
    address: str = ""

    @property
    def call(self) -> Received:
        """The one call that arrived."""
        (only,) = self.calls
        return only

    def register(self, server: grpc.aio.Server) -> None:
        for service in contract.services():
            handlers = {method.name: self._handler(method) for method in service.methods}
            generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
            server.add_generic_rpc_handlers((generic,))
        check = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        generic = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
        server.add_generic_rpc_handlers((generic,))

    async def _check(self, request: Any, context: Context) -> Any:
        return health_pb2.HealthCheckResponse(status=self.health)

    def _handler(self, method: Any) -> Any:
        make: Any = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        request, answer = (contract.message_class(each) for each in (method.input_type, method.output_type))
        behave = self._stream if method.server_streaming else self._answer
        return make(
            functools.partial(behave, method.name, answer),
            request_deserializer=request.FromString,
            response_serializer=answer.SerializeToString,
        )

    def _record(self, name: str, request: Any, context: Context) -> None:
        metadata = dict[str, Any](context.invocation_metadata() or ())
        self.calls.append(Received(name, request, metadata, context.time_remaining()))

    async def _answer(self, name: str, answer: type[Message], request: Any, context: Context) -> Message:
        self._record(name, request, context)
        behaviour = self.on.get(name)
        return await behaviour(request, context) if behaviour else answer()

    async def _stream(self, name: str, answer: type[Message], request: Any, context: Context) -> AsyncIterator[Message]:
        self._record(name, request, context)
        if behaviour := self.on.get(name):
            async for message in behaviour(request, context):
                yield message


@asynccontextmanager
async def control_plane(address: str = "127.0.0.1:0") -> AsyncGenerator[FakeControlPlane]:
    """Runs a fake control plane."""
    fake = FakeControlPlane()
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    fake.register(server)
    fake.address = f"127.0.0.1:{server.add_insecure_port(address)}"
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(0)


Client = httpx.AsyncClient


@asynccontextmanager
async def gateway() -> AsyncGenerator[tuple[FakeControlPlane, Client]]:
    """The application without an HTTP server, before a fake control plane."""
    async with control_plane() as fake, connect(fake.address) as channel:
        transport = httpx.ASGITransport(app=build_app(channel, asyncio.Event()), client=("192.0.2.7", 1234))
        async with Client(transport=transport, base_url="http://gateway", timeout=PATIENCE, trust_env=False) as client:
            yield fake, client


@dataclass(slots=True)
class Served:
    """A gateway behind a real HTTP server."""

    address: str
    server: Server
    task: asyncio.Task[None]

    async def stop(self) -> None:
        """Ends the server as a signal would, and waits for its end."""
        self.server.stop()
        await self.task


@asynccontextmanager
async def served(server_address: str, trusted_proxies: str = "") -> AsyncGenerator[tuple[Served, Client]]:
    """The application behind uvicorn on a free port."""
    stopping, listener = asyncio.Event(), listen("127.0.0.1", 0)
    async with connect(server_address) as channel:
        server = Server(build_app(channel, stopping), stopping, trusted_proxies)
        address = address_of(listener)
        running = Served(address, server, asyncio.create_task(server.serve([listener])))
        await server.listening.wait()
        async with Client(base_url=f"http://{address}", timeout=PATIENCE, trust_env=False) as client:
            yield running, client
        await running.stop()


async def eventually(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the condition is in another task's plain data
            await asyncio.sleep(0.005)
