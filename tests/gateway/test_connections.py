"""Slow clients and clients that speak no HTTP, on the wire."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gateway_fakes import Context, FakeControlPlane, control_plane, in_loop, served

from towline.v1.run_pb2 import Event
from towline.v1.run_service_pb2 import WatchRunResponse
from towline_gateway import bodies, connections

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def wire() -> AsyncGenerator[tuple[FakeControlPlane, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a gateway, byte by byte."""
    async with control_plane() as fake, served(fake.address) as (gateway, _):
        host, _, port = gateway.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield fake, reader, writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Reads one answer that has a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    (length,) = (line.split(": ")[1] for line in head.splitlines() if line.startswith("content-length"))
    return int(head.split(" ")[1]), await reader.readexactly(int(length))


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Waits for the other end to close."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-"])
@in_loop
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    async with wire() as (_, reader, writer):
        writer.write(sent)
        assert await is_closed(reader)


@in_loop
async def test_the_time_of_a_head_does_not_begin_anew_with_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    async with wire() as (_, reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        closed = asyncio.create_task(is_closed(reader))
        while not closed.done():
            writer.write(b"X")
            await asyncio.wait({closed}, timeout=0.05)
        assert closed.result()


@in_loop
async def test_a_connection_serves_many_requests_and_then_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    async with wire() as (_, reader, writer):
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await answer(reader))[0] == 200
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)  # pipelined
        assert [(await answer(reader))[0], (await answer(reader))[0]] == [200, 200]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 1)  # no head is awaited, so that none is late


@in_loop
async def test_a_body_that_stalls_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "DOCUMENT_SECONDS", 0.2)
    async with wire() as (fake, reader, writer):
        writer.write(b"POST /api/workflows HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b'Content-Length: 100\r\n\r\n{"name')
        code, body = await answer(reader)
        assert (code, json.loads(body)["error"]["reason"]) == (408, "DEADLINE_EXCEEDED")
        assert fake.calls == []


@in_loop
async def test_who_goes_on_sending_what_was_refused_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.2)
    async with wire() as (_, reader, writer):
        writer.write(b"POST /api/workflows HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert (await answer(reader))[0] == 413
        closed = asyncio.create_task(is_closed(reader))
        while not closed.done():
            writer.write(b"x" * 1_000)
            await asyncio.wait({closed}, timeout=0.02)
        assert closed.result()


@in_loop
async def test_a_refused_body_that_ends_leaves_the_connection_open() -> None:
    async with wire() as (_, reader, writer):
        writer.write(b"POST /api/workflows HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        assert (await answer(reader))[0] == 413
        for _ in range(9):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "INVALID_ARGUMENT"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "INVALID_ARGUMENT"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "INVALID_ARGUMENT"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000, 431, "LIMIT_EXCEEDED"),
    ],
)
@in_loop
async def test_what_is_no_request_gets_the_body_of_all_errors(sent: bytes, code: int, reason: str) -> None:
    async with wire() as (_, reader, writer):
        writer.write(sent)
        status, body = await answer(reader)
        error = json.loads(body)["error"]
        assert (status, error["code"], error["reason"]) == (code, code, reason)
        assert await is_closed(reader)


@in_loop
async def test_a_body_that_is_no_http_ends_its_request() -> None:
    async with wire() as (fake, reader, writer):
        writer.write(b"POST /api/workflows HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\nnot hex\r\n")
        assert (await answer(reader))[0] == 400
        assert await is_closed(reader)
        assert fake.calls == []


@in_loop
async def test_a_reader_of_events_that_stops_reading_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.3)
    async with wire() as (fake, reader, writer):
        cancelled = asyncio.Event()

        async def flood(request: Any, context: Context) -> AsyncIterator[Any]:
            details = Event()
            details.details["text"] = "x" * 50_000
            try:
                while True:
                    yield WatchRunResponse(event=details, cursor="c")
            finally:
                cancelled.set()

        fake.on["WatchRun"] = flood
        writer.write(b"GET /api/runs/r1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(30):
            await cancelled.wait()


@in_loop
async def test_a_connection_too_many_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire() as (_, reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200
        monkeypatch.setattr(connections, "most_connections", lambda: 1)
        host, port = writer.get_extra_info("peername")
        late, other = await asyncio.open_connection(host, port)
        code, body = await answer(late)
        assert (code, json.loads(body)["error"]["reason"]) == (503, "UNAVAILABLE")
        assert await is_closed(late)
        other.transport.abort()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200
