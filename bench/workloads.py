"""Whole runs through the public API, with a real agent that forks a process per step, on both databases.

    python -m bench.workloads [sqlite,postgres] [chain,fan,burst,start]

- chain: 40 steps one behind the other, each naive `fib(10)` in Python; seconds from the start to the end of the run
- fan: one step, 500 behind it, one behind those, 8 slots; steps per second
- burst: 500 runs of one step, started as fast as one client can; runs per second from the first start to the last end
- start: one step on an idle installation; milliseconds from the start to the end of the run, p50 and p95
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import psutil

from bench.dags import Document, chain, fan
from bench.figures import spread, table
from bench.store import Store, stores
from towline.v1.run_pb2 import Run
from towline_cli.child_settings import Places
from towline_cli.installation import Installation
from towline_sdk.client import Client
from towline_sdk.documents import parse_workflow

_FIB = """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def main(config, inputs):
    return {"n": fib(10)}
"""
_SLOTS = 8
_CHAIN = 40
_WIDTH = 500
_BURST = 500
_STARTING, _WATCHING = 32, 100
_STARTS = 100
_TRIALS = 5


class Bench:
    """One installation and what is measured on it."""

    def __init__(self, client: Client) -> None:
        self._runs = client.runs
        self._workflows = client.workflows

    async def chain(self) -> list[str]:
        """Seconds of the chain."""
        workflow = await self._create(_with_code(chain(_CHAIN)))
        seconds = [await self._seconds(workflow) for _ in range(_TRIALS + 1)][1:]
        return [f"chain of {_CHAIN}, s", spread(seconds, 3)]

    async def fan(self) -> list[str]:
        """Steps per second of the fan."""
        workflow = await self._create(fan(_WIDTH))
        rates = [(_WIDTH + 2) / await self._seconds(workflow) for _ in range(_TRIALS)]
        return [f"fan of {_WIDTH}, steps/s", spread(rates)]

    async def burst(self) -> list[str]:
        """Runs per second of the burst."""
        workflow = await self._create(chain(1))
        rates: list[float] = []
        for _ in range(_TRIALS):
            began, starting, watching = time.perf_counter(), asyncio.Semaphore(_STARTING), asyncio.Semaphore(_WATCHING)
            await asyncio.gather(*[self._run(workflow, starting, watching) for _ in range(_BURST)])
            rates.append(_BURST / (time.perf_counter() - began))
        return [f"burst of {_BURST}, runs/s", spread(rates)]

    async def start(self) -> list[str]:
        """Milliseconds of one step."""
        workflow = await self._create(chain(1))
        ms = sorted([await self._seconds(workflow) * 1000 for _ in range(_STARTS)])
        return ["start of one step, ms", f"p50 {statistics.median(ms):.1f}, p95 {ms[int(len(ms) * 0.95)]:.1f}"]

    async def _create(self, dag: Document) -> str:
        made = parse_workflow({"name": "bench", "dag": dag})
        return (await self._workflows.create(made)).id

    async def _seconds(self, workflow: str) -> float:
        began = time.perf_counter()
        await self._run(workflow, asyncio.Semaphore(), asyncio.Semaphore())
        return time.perf_counter() - began

    async def _run(self, workflow: str, starting: asyncio.Semaphore, watching: asyncio.Semaphore) -> None:
        async with starting:
            run = await self._runs.start(workflow)
        async with watching:
            async for _ in self._runs.watch(run.id):
                pass
        ended = await self._runs.get(run.id)
        if ended.state != Run.SUCCEEDED:
            raise AssertionError(ended)


def _with_code(dag: Document) -> Document:
    nodes = [{**node, "type": "PYTHON", "config": {"code": _FIB}} for node in dag["nodes"]]
    return {**dag, "nodes": nodes}


async def measure(store: Store, names: list[str]) -> list[list[str]]:
    """Returns a row for each workload, with the CPU that all processes of the installation took for it."""
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="towline-bench-") as folder:
        environment: Mapping[str, str] = {**os.environ, "DATABASE_URL": store.url, "LOG_LEVEL": "WARNING"}
        places = Places(Path(folder), 0, 0, _SLOTS)
        async with Installation(places, inherited=environment) as running, Client(running.grpc) as guest:
            secrets = running.secrets
            token = (await guest.auth.login(secrets.admin_email, secrets.admin_password)).access_token
            async with Client(running.grpc, token) as client:
                bench = Bench(client)
                workloads: dict[str, Callable[[], Awaitable[list[str]]]] = {
                    "chain": bench.chain,
                    "fan": bench.fan,
                    "burst": bench.burst,
                    "start": bench.start,
                }
                rows += [[store.name, *await workloads[name](), _memory()] for name in names or workloads]
    return rows


def _memory() -> str:
    """What the processes of the installation hold, in MiB."""
    found: dict[str, int] = {}
    for child in psutil.Process().children(recursive=True):
        line = " ".join(child.cmdline())
        for part in ("controlplane", "gateway", "agent.supervisor", "agent"):
            if f"towline_{part}" in line:
                found.setdefault(part, child.memory_info().rss >> 20)
                break
    return ", ".join(f"{part} {size}" for part, size in sorted(found.items()))


def main() -> None:
    kinds = sys.argv[1] if len(sys.argv) > 1 else "sqlite,postgres"
    names = sys.argv[2].split(",") if len(sys.argv) > 2 else []
    rows = [row for store in stores(kinds) for row in asyncio.run(measure(store, names))]
    print(table(["", "workload", "median (smallest–largest)", "MiB"], rows))


if __name__ == "__main__":
    main()
