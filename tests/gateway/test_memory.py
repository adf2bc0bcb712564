"""What the gateway keeps in memory of bodies and files that are far larger than it may become."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
from gateway_fakes import Context, control_plane, in_loop
from gateway_processes import Running, gateway_process

from towline.v1.artifact_pb2 import Artifact
from towline.v1.plugin_pb2 import Plugin
from towline.v1.plugin_service_pb2 import PushPluginResponse
from towline.v1.run_service_pb2 import DownloadArtifactResponse

MIB = 1 << 20
SIZE = 200 * MIB
MOST_GROWTH = 32 * MIB
"""A document of the largest size, and what the libraries hold on their way."""


class Growth:
    """How much more memory a process has had at most than when this began."""

    def __init__(self, running: Running) -> None:
        self._status = Path(f"/proc/{running.process.pid}/status")
        self._before = psutil.Process(running.process.pid).memory_info().rss

    def peak(self) -> int:
        (line,) = (line for line in self._status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 - self._before


async def octets(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // MIB):
        yield b"x" * MIB


@in_loop
async def test_of_a_body_beyond_the_limit_no_more_than_the_limit_is_kept(tmp_path: Path) -> None:
    async with control_plane() as fake, gateway_process(tmp_path, fake.address) as (running, client):
        await client.get("/api/runs")
        growth = Growth(running)
        host, _, port = str(client.base_url.netloc, "ascii").partition(":")
        for head in (b"Transfer-Encoding: chunked", f"Content-Length: {SIZE}".encode()):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /api/workflows HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + head)
            writer.write(b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):  # it was told, and cut off when it went on
                async for piece in octets(SIZE):
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if b"chunked" in head else piece)
                    await writer.drain()
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413 ")
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        assert fake.calls[1:] == []
        assert growth.peak() < MOST_GROWTH


@in_loop
async def test_an_upload_passes_through(tmp_path: Path) -> None:
    async with control_plane() as fake, gateway_process(tmp_path, fake.address) as (running, client):
        received = 0

        async def take(requests: Any, context: Context) -> Any:
            nonlocal received
            async for request in requests:
                received += len(request.chunk)
            return PushPluginResponse(plugin=Plugin(id="p"))

        fake.on["PushPlugin"] = take
        await client.get("/api/runs")
        growth = Growth(running)
        headers = {"Content-Type": "application/octet-stream"}
        answer = await client.post("/api/plugins", content=octets(SIZE), headers=headers)
        assert (answer.status_code, received) == (201, SIZE)
        assert growth.peak() < MOST_GROWTH


@in_loop
async def test_a_download_passes_through_at_the_pace_of_its_reader(tmp_path: Path) -> None:
    async with control_plane() as fake, gateway_process(tmp_path, fake.address) as (running, client):
        sent = 0

        async def give(request: Any, context: Context) -> AsyncIterator[Any]:
            nonlocal sent
            about = Artifact(name="big", size_bytes=SIZE, digest="d", content_type="application/octet-stream")
            yield DownloadArtifactResponse(artifact=about)
            piece = b"x" * (MIB // 4)
            while sent < SIZE:
                sent += len(piece)
                yield DownloadArtifactResponse(chunk=piece)

        fake.on["DownloadArtifact"] = give
        await client.get("/api/runs")
        growth = Growth(running)
        digest, ahead = hashlib.sha256(), 0
        async with client.stream("GET", "/api/runs/r/artifacts/n/big") as answer:
            assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE))
            async for data in answer.aiter_bytes(MIB):
                digest.update(data)
                ahead = max(ahead, sent - answer.num_bytes_downloaded)
        assert digest.hexdigest() == hashlib.sha256(b"x" * SIZE).hexdigest()
        assert ahead < MOST_GROWTH
        assert growth.peak() < MOST_GROWTH
