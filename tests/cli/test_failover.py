"""A list of servers: calls go to one of them until it is gone or silent, then to the next."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

from towline_sdk.failover import connected, open_channel
from towline_sdk.servers import addresses, checked

NOBODY = "127.0.0.1:1"
Call = Callable[..., Awaitable[bytes]]


@asynccontextmanager
async def replica(name: str, *, silent: bool = False) -> AsyncGenerator[tuple[str, aio.Server]]:
    async def say_name(request: bytes, context: Any) -> bytes:
        if silent:
            await asyncio.Event().wait()
        return name.encode()

    server = aio.server()
    method: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(say_name)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", {"Name": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        await server.stop(grace=0)


async def repeated(call: Call) -> bytes:
    while True:
        try:
            return await call(b"", timeout=10)
        except aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:  # the call was made before the loss was noticed
                raise


@asynccontextmanager
async def caller(*servers: str) -> AsyncGenerator[Call]:
    options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.use_local_subchannel_pool", 1))
    async with open_channel(",".join(servers), options) as channel:
        async with asyncio.timeout(30):
            await connected(channel)
        yield channel.unary_unary("/Test/Name")


def test_calls_stay_with_a_replica_until_it_is_gone() -> None:
    async def scenario() -> None:
        async with replica("a") as (first, a), replica("b") as (second, b), caller(first, second) as call:
            [name] = {await call(b"") for _ in range(3)}
            chosen, other = (a, b"b") if name == b"a" else (b, b"a")
            await chosen.stop(grace=0)
            assert await repeated(call) == other
            assert {await call(b"") for _ in range(3)} == {other}

    asyncio.run(scenario())


def test_a_replica_that_is_away_from_the_start_is_passed_over() -> None:
    async def scenario() -> None:
        async with replica("b") as (second, _), caller(NOBODY, second) as call:
            assert await call(b"", timeout=10) == b"b"

    asyncio.run(scenario())


def test_calls_leave_a_replica_that_is_connected_but_silent() -> None:
    async def scenario() -> None:
        async with replica("a", silent=True) as (first, _), replica("b") as (second, _), caller(first, second) as call:
            answers: list[bytes | grpc.StatusCode] = []
            while answers[-1:] != [b"b"]:
                try:
                    answers.append(await call(b"", timeout=0.2 + len(answers)))
                except aio.AioRpcError as error:
                    answers.append(error.code())
                    await asyncio.sleep(0)
            assert set(answers[:-1]) <= {grpc.StatusCode.DEADLINE_EXCEEDED}
            assert await call(b"", timeout=10) == b"b"

    asyncio.run(scenario())


def test_one_server_is_an_ordinary_channel() -> None:
    async def scenario() -> None:
        async with replica("a") as (only, _), caller(only) as call:
            assert await call(b"", timeout=10) == b"a"
        channel = open_channel(NOBODY, ())
        await connected(channel)
        await channel.close()

    asyncio.run(scenario())


def test_nobody_there_is_unavailable() -> None:
    async def scenario() -> None:
        async with caller(NOBODY, "127.0.0.1:2") as call:
            with pytest.raises(aio.AioRpcError) as caught:
                await call(b"", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def test_servers_are_named_with_their_ports() -> None:
    assert addresses("a:1, b:2,") == ("a:1", "b:2")
    assert checked("a:1, b:2") == "a:1, b:2"
    for wrong in ("", ",", "a", "a:1,b"):
        with pytest.raises(ValueError, match="host:port"):
            checked(wrong)
