"""Uploads through a real HTTP server: chunks, early refusals, bodies that break off, and limits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from gateway_fakes import Context, control_plane, eventually, in_loop, refuse, served

from towline.v1.plugin_pb2 import Plugin
from towline.v1.plugin_service_pb2 import PushPluginRequest, PushPluginResponse
from towline_gateway import bodies
from towline_gateway.uploads import CHUNK_BYTES

OCTETS = {"Content-Type": "application/octet-stream"}


class Store:
    """Takes bundles as the control plane does: kept only when the stream ends well."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.sizes: list[int] = []
        self.broken = asyncio.Event()

    async def push(self, requests: AsyncIterator[PushPluginRequest], context: Context) -> PushPluginResponse:
        octets = bytearray()
        try:
            async for request in requests:
                self.sizes.append(len(request.chunk))
                octets += request.chunk
            await asyncio.sleep(0)  # a cancelled stream ends like a complete one; the cancellation comes right after
        except BaseException:
            self.broken.set()
            raise
        self.kept.append(bytes(octets))
        return PushPluginResponse(plugin=Plugin(name="p"))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 1_000_000])
@in_loop
async def test_the_body_arrives_whole_in_chunks(size: int) -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        store = Store()
        fake.on["PushPlugin"] = store.push
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        answer = await client.post("/api/plugins", content=body, headers=OCTETS)
        assert (answer.status_code, answer.json()["name"]) == (201, "p")
        assert store.kept == [body]
        assert max(store.sizes, default=0) <= CHUNK_BYTES


@in_loop
async def test_an_early_refusal_reaches_the_client() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):

        async def full(requests: AsyncIterator[PushPluginRequest], context: Context) -> Any:
            await anext(aiter(requests))
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", "Too large.")

        fake.on["PushPlugin"] = full
        answer = await client.post("/api/plugins", content=b"x" * 20_000_000, headers=OCTETS)
        assert (answer.status_code, answer.json()["error"]["message"]) == (413, "Too large.")


@in_loop
async def test_a_body_that_breaks_off_is_not_kept() -> None:
    async with control_plane() as fake, served(fake.address) as (running, _):
        store = Store()
        fake.on["PushPlugin"] = store.push
        _, writer = await open_upload(running.address, "/api/plugins", "application/octet-stream")
        await eventually(lambda: bool(store.sizes))
        writer.close()
        async with asyncio.timeout(20):
            await store.broken.wait()
        assert store.kept == []


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
@in_loop
async def test_another_media_type_is_refused(headers: dict[str, str]) -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        answer = await client.post("/api/plugins", content=b"x", headers=headers)
        assert answer.status_code == 415
        assert fake.calls == []


@pytest.mark.parametrize("announced", [True, False])
@in_loop
async def test_a_document_beyond_the_limit_is_413_and_the_connection_goes_on(announced: bool) -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(bodies.MAX_DOCUMENT_BYTES // 65536 + 2):
                yield b" " * 65536

        content: Any = b" " * (bodies.MAX_DOCUMENT_BYTES + 1) if announced else chunks()
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/api/workflows", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"]["reason"] == "LIMIT_EXCEEDED"
        assert (await client.get("/api/runs")).status_code == 200


@pytest.mark.parametrize(
    ("path", "media_type"), [("/api/workflows", "application/json"), ("/api/plugins", "application/octet-stream")]
)
@in_loop
async def test_a_body_that_stalls_is_408(path: str, media_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "DOCUMENT_SECONDS", 0.05)
    monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.05)
    async with control_plane() as fake, served(fake.address) as (running, _):
        store = Store()
        fake.on["PushPlugin"] = store.push
        reader, writer = await open_upload(running.address, path, media_type)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert store.kept == []


async def open_upload(address: str, path: str, media_type: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Announces half a million bytes and sends less."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\nContent-Type: {media_type}\r\n\r\n"
    writer.write(head.encode() + b" " * 200_000)
    await writer.drain()
    return reader, writer
