"""How fast is a log read: over gRPC, and through the gateway as server-sent events?

Starts a whole installation. One step writes a log, which is then read whole, several times each way, by one reader at
a time: `python -m bench.log_readers [--lines N] [--rounds N]`. What a reader does with a line is nothing.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
from examples.demo import INHERITED

from bench.figures import table
from bench.logs import workflow
from towline_cli.child_settings import Places
from towline_cli.installation import Installation
from towline_sdk.client import Client
from towline_sdk.documents import Json

_PRINT = """
import sys
def main(config, inputs):
    for first in range(0, {lines}, 1000):
        sys.stdout.write("".join("%08d %s\\n" % (n, "x" * 48) for n in range(first, first + 1000)))
    return {{}}
"""
_EVENT = b"\nevent: line\ndata: "
_END = b"\nevent: end\ndata: "


async def main(lines: int, rounds: int) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory(prefix="towline-bench-") as folder:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        installation = Installation(Places(Path(folder), 0, 0), inherited=inherited, report=lambda text: None)
        async with installation as running:
            async with Client(running.grpc) as visitor:
                secrets = running.secrets
                token = (await visitor.auth.login(secrets.admin_email, secrets.admin_password)).access_token
            async with Client(running.grpc, token) as client:
                node: dict[str, Json] = {
                    "id": "print",
                    "type": "PYTHON",
                    "config": {"code": _PRINT.format(lines=lines)},
                }
                run = await client.runs.start(await workflow(client, node))
                await client.runs.result(run.id)

                async def grpc() -> int:
                    return sum([1 async for _ in client.runs.logs(run.id, follow=True)])

                async def sse() -> int:
                    return await events(running.http, f"/api/runs/{run.id}/logs?follow=true", token)

                rows = [await measured("gRPC", grpc, lines, rounds), await measured("SSE", sse, lines, rounds)]
                print(table(["", "lines/s p50", "least", "most", "control plane µs/line", "gateway µs/line"], rows))


async def measured(name: str, read: Callable[[], Awaitable[int]], lines: int, rounds: int) -> list[str]:
    """Reads the whole log several times; returns what is printed of it."""
    rates: list[float] = []
    busy = cpu_seconds()
    for _ in range(rounds):
        began = time.perf_counter()
        count = await read()
        if count != lines:
            raise RuntimeError(f"{name}: {count} of {lines} lines")
        rates.append(count / (time.perf_counter() - began))
    spent = [f"{(now - before) / lines / rounds * 1e6:.1f}" for before, now in zip(busy, cpu_seconds(), strict=True)]
    return [name, *(f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))), *spent]


def cpu_seconds() -> list[float]:
    """What control plane and gateway have computed so far."""
    words = {" ".join(child.cmdline()): child.cpu_times() for child in psutil.Process().children()}
    return [
        sum(times.user + times.system for command, times in words.items() if part in command)
        for part in ("towline_controlplane", "towline_gateway")
    ]


async def events(address: str, path: str, token: str) -> int:
    """Counts the lines of a stream of events, up to its end."""
    host, _, port = address.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    count, rest = 0, b""
    while data := await reader.read(1 << 18):
        data = rest + data
        count += data.count(_EVENT)
        if _END in data:
            break
        rest = data[-len(_EVENT) + 1 :]
    writer.close()
    await writer.wait_closed()
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.log_readers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(main(given.lines, given.rounds))
