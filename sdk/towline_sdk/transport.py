"""One gRPC channel with credentials, deadlines and retries; knows the meaning of no method.

The path of a call follows from its request: `GetRunRequest` belongs to the service declared in the same file. Only the
calls that may be repeated are sent again after UNAVAILABLE; streams go on from the cursor last seen.
"""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf.message import Message
from grpc import StatusCode, aio

from towline.v1.run_service_pb2 import TailLogsResponse, WatchRunResponse
from towline_sdk import failover
from towline_sdk.rpc_errors import from_rpc

READS: Final = ("Explain", "Get", "List")
"""What the names of methods that change nothing begin with."""
REPEATABLE: Final = frozenset(
    {
        "CancelRun",
        "CapAgent",
        "DisableAgent",
        "DisableUser",
        "DrainAgent",
        "EnableAgent",
        "EnableUser",
        "GrantSecret",
        "Login",
        "PauseRun",
        "PinWorkflowVersion",
        "PushPlugin",  # content-addressed
        "ResumeRun",
        "RevokeSecret",
        "SetUserPassword",
        "SetUserRole",
        "SignOutUser",
        "StartRun",  # carries a request_id
        "UndrainAgent",
    }
)
"""Methods that change something, but nothing more when they are sent again."""
UNARY_TRIES: Final = 5
STREAM_TRIES: Final = 12
FIRST_BACKOFF_SECONDS: Final = 0.1
LONGEST_BACKOFF_SECONDS: Final = 3.0
CHANNEL_OPTIONS: Final = (
    *failover.KEEPALIVE,
    ("grpc.max_receive_message_length", 64 << 20),
    # The default waits 1 s after a refused connection: longer than the first retries, which would all be in vain.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)

AnswerT = TypeVar("AnswerT", bound=Message)
CursoredT = TypeVar("CursoredT", WatchRunResponse, TailLogsResponse)


class Transport:
    """Calls to one server, or to replicas of it, in the name of one user, on one event loop."""

    def __init__(self, address: str, token: str, deadline_seconds: float, ca_file: Path | None = None) -> None:
        self._address = address
        self._token = token
        self._deadline_seconds = deadline_seconds
        self._channel = failover.open_channel(address, CHANNEL_OPTIONS, ca_file)

    async def close(self) -> None:
        """Ends the channel and every call on it."""
        await self._channel.close()

    async def call(self, request: Message, answer: type[AnswerT]) -> AnswerT:
        """Returns the answer of a unary call within the deadline, or raises a `TowlineError`."""
        method = self._channel.unary_unary(method_path(request), _serialize, answer.FromString)

        async def send(seconds: float, request_id: str) -> AnswerT:
            return await method(request, timeout=seconds, metadata=self._metadata(request_id))

        return await self._repeat(request, send)

    async def upload(self, requests: Sequence[Message], answer: type[AnswerT]) -> AnswerT:
        """Returns the answer to a stream of at least one request within the deadline, or raises a `TowlineError`."""
        method = self._channel.stream_unary(method_path(requests[0]), _serialize, answer.FromString)

        async def send(seconds: float, request_id: str) -> AnswerT:
            return await method(iter(requests), timeout=seconds, metadata=self._metadata(request_id))

        return await self._repeat(requests[0], send)

    async def stream(self, request: Message, answer: type[AnswerT]) -> AsyncIterator[AnswerT]:
        """Yields the answers of a server stream; raises a `TowlineError` when it breaks, which it does not repair."""
        request_id = uuid.uuid4().hex
        await failover.connected(self._channel)
        method = self._channel.unary_stream(method_path(request), _serialize, answer.FromString)
        stream = method(request, metadata=self._metadata(request_id))
        try:
            async for item in stream:
                yield item
        except aio.AioRpcError as error:
            raise from_rpc(error, self._address, request_id) from None
        finally:
            stream.cancel()

    async def follow(self, request_from: Callable[[str], Message], answer: type[CursoredT]) -> AsyncIterator[CursoredT]:
        """Yields each answer of a server stream once, across lost connections; ends when the server ends it."""
        cursor, failures, request_id = "", 0, uuid.uuid4().hex
        while True:
            await failover.connected(self._channel)
            request = request_from(cursor)
            method = self._channel.unary_stream(method_path(request), _serialize, answer.FromString)
            stream = method(request, metadata=self._metadata(request_id))
            try:
                async for item in stream:
                    yield item
                    cursor, failures = item.cursor, 0
            except aio.AioRpcError as error:
                failures += 1
                if error.code() is not StatusCode.UNAVAILABLE or failures >= STREAM_TRIES:
                    raise from_rpc(error, self._address, request_id) from None
            else:
                return
            finally:
                stream.cancel()
            await asyncio.sleep(backoff_seconds(failures - 1))

    async def _repeat(self, request: Message, send: Callable[[float, str], Awaitable[AnswerT]]) -> AnswerT:
        tries = UNARY_TRIES if may_repeat(method_name(request)) else 1
        ends_at = time.monotonic() + self._deadline_seconds
        request_id = uuid.uuid4().hex
        failures = 0
        while True:
            await failover.connected(self._channel)
            try:
                return await send(ends_at - time.monotonic(), request_id)
            except aio.AioRpcError as error:
                failures += 1
                pause = backoff_seconds(failures - 1)
                in_time = failures < tries and time.monotonic() + pause < ends_at
                if error.code() is not StatusCode.UNAVAILABLE or not in_time:
                    raise from_rpc(error, self._address, request_id) from None
            await asyncio.sleep(pause)

    def _metadata(self, request_id: str) -> aio.Metadata:
        metadata = aio.Metadata(("x-request-id", request_id))
        if self._token:
            metadata.add("authorization", f"Bearer {self._token}")
        return metadata


def method_name(request: Message) -> str:
    """Returns `GetRun` for `GetRunRequest`."""
    return request.DESCRIPTOR.name.removesuffix("Request")


def may_repeat(method: str) -> bool:
    """Tells whether sending a call twice does no more than sending it once."""
    return method.startswith(READS) or method in REPEATABLE


def method_path(request: Message) -> str:
    """Returns `/towline.v1.RunService/GetRun` for `GetRunRequest`."""
    (service,) = request.DESCRIPTOR.file.services_by_name.values()
    return f"/{service.full_name}/{method_name(request)}"


def backoff_seconds(failures: int) -> float:
    """Returns a random wait below a bound that doubles with each failure."""
    bound = min(FIRST_BACKOFF_SECONDS * 2**failures, LONGEST_BACKOFF_SECONDS)
    return random.uniform(0, bound)  # noqa: S311 - spreads load, guards nothing


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
