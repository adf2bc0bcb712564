"""How much one step may write: is every line kept, are other steps and heartbeats late, does memory grow?

Starts a whole installation. One step writes lines at a steady rate; beside it runs of one short step follow one
another. What is compared is the same with and without the flood:
`python -m bench.logs [sqlite|postgres] [--rate N] [--seconds N]`.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from examples.demo import INHERITED
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp

from bench.figures import table
from bench.store import postgres
from towline.v1.run_pb2 import Event, LogsEnd
from towline_cli.child_settings import Places
from towline_cli.installation import Installation
from towline_sdk.client import Client
from towline_sdk.documents import Json, parse_workflow

_WIDTH = 48
_FLOOD = """
import sys, time
def main(config, inputs):
    rate, total, number = {rate}, {total}, 0
    began = time.monotonic()
    while number < total:
        due = min(total, int((time.monotonic() - began) * rate))
        if due > number:
            sys.stdout.write("".join("%08d %s\\n" % (n, "x" * {width}) for n in range(number, due)))
            sys.stdout.flush()
            number = due
        else:
            time.sleep(0.002)
    return {{"seconds": time.monotonic() - began}}
"""


@dataclass(slots=True)
class Watched:
    """What was seen while other steps ran."""

    starts_ms: list[float] = field(default_factory=list[float])
    heartbeats: list[float] = field(default_factory=list[float])
    memory_mb: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def row(self, name: str) -> list[str]:
        """Returns what is printed of it."""
        starts = sorted(self.starts_ms)
        memory = [course(values) for _, values in sorted(self.memory_mb.items())]
        p95 = starts[int(len(starts) * 0.95)]
        gap = f"{max(b - a for a, b in itertools.pairwise([*self.heartbeats, self.heartbeats[-1]])):.1f}"
        return [name, str(len(starts)), f"{statistics.median(starts):.1f}", f"{p95:.1f}", gap, *memory]


def course(values: Sequence[float]) -> str:
    """Returns sizes at the start and at the end of each quarter of the time."""
    last = len(values) - 1
    return " → ".join(f"{values[last * quarter // 4]:.0f}" for quarter in range(5))


async def main(database: str, rate: int, seconds: float) -> None:
    """Measures and prints."""
    kept_kb = int(rate * seconds) * (_WIDTH + 10) // 1024 + 1
    with tempfile.TemporaryDirectory(prefix="towline-bench-") as folder, stored(database) as where:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        inherited |= {"PLUGIN_TIMEOUT_MS": "600000", "PLUGIN_LOG_KB": str(kept_kb), **where}
        installation = Installation(Places(Path(folder), 0, 0), inherited=inherited, report=lambda text: None)
        async with installation as running:
            async with Client(running.grpc) as visitor:
                secrets = running.secrets
                token = (await visitor.auth.login(secrets.admin_email, secrets.admin_password)).access_token
            async with Client(running.grpc, token) as client:
                await measure(client, rate, seconds)


@contextlib.contextmanager
def stored(database: str) -> Generator[dict[str, str]]:
    """Gives the settings of a database: the embedded one, or a PostgreSQL server of one's own."""
    if database == "sqlite":
        yield {}
        return
    with postgres() as store:
        yield {"DATABASE_URL": store.url}


async def measure(client: Client, rate: int, seconds: float) -> None:
    """Measures the same without and with a flood, then reads what was written."""
    short = await workflow(client, {"id": "short", "type": "DELAY", "config": {"seconds": 0}})
    total = int(rate * seconds)
    code = _FLOOD.format(rate=rate, total=total, width=_WIDTH)
    flood = await workflow(client, {"id": "flood", "type": "PYTHON", "config": {"code": code}})
    await watched(client, short, asyncio.create_task(asyncio.sleep(1)))
    quiet = await watched(client, short, asyncio.create_task(asyncio.sleep(seconds)))
    run = await client.runs.start(flood)
    flooding = asyncio.create_task(client.runs.result(run.id))
    loud = await watched(client, short, flooding)
    run = flooding.result()
    took: float = json.loads(MessageToJson(run.output))["flood"]["seconds"]
    behind = time.time() - run.end_time.ToNanoseconds() / 1e9
    head = ["", "steps", "start p50 ms", "p95 ms", "longest Sync gap s", "agent MB", "control plane MB"]
    print(table(head, [quiet.row("alone"), loud.row(f"beside {rate:,} lines/s")]))
    print(f"\nthe step wrote {total:,} lines in {took:.1f} s: {total / took:,.0f} lines/s ({behind:.1f} s ago)")
    await read_all(client, run.id, total)


async def read_all(client: Client, run_id: str, total: int) -> None:
    """Reads the log and says whether it is what was written."""
    ends: list[LogsEnd] = []
    began, count, wrong = time.perf_counter(), 0, 0
    async for line in client.runs.logs(run_id, follow=True, on_end=ends.append):
        wrong += line.text[:8] != f"{count:08d}"
        count += 1
    rate = count / (time.perf_counter() - began)
    state = "complete" if ends[0].complete else "NOT COMPLETE"
    print(
        f"read {count:,} of {total:,} lines, {wrong} of them not in order; the log is {state}; {rate:,.0f} lines/s read"
    )


async def watched(client: Client, workflow_id: str, meanwhile: "asyncio.Task[Any]") -> Watched:
    """Lets runs of one short step follow one another until a task is done."""
    seen = Watched()
    processes = {name: found for name, found in _processes().items() if name in ("agent", "controlplane")}
    while not meanwhile.done():
        run = await client.runs.start(workflow_id)
        times: dict[Event.Type, float] = {}
        async for event in client.runs.watch(run.id):
            times[event.type] = _seconds(event.create_time)
        seen.starts_ms.append((times[Event.STEP_STARTED] - times[Event.STEP_READY]) * 1e3)
        beat = _seconds((await client.agents.list()).agents[0].last_seen_time)
        if beat not in seen.heartbeats[-1:]:
            seen.heartbeats.append(beat)
        for name, process in processes.items():
            seen.memory_mb.setdefault(name, []).append(process.memory_info().rss / 2**20)
        await asyncio.sleep(0.02)
    return seen


async def workflow(client: Client, node: dict[str, Json]) -> str:
    """Creates a workflow of one node and returns its id."""
    made = parse_workflow({"name": node["id"], "dag": {"nodes": [node], "edges": []}})
    return (await client.workflows.create(made)).id


def _processes() -> dict[str, psutil.Process]:
    found: dict[str, psutil.Process] = {}
    for child in psutil.Process().children():
        for part in ("agent", "controlplane"):
            if f"towline_{part}" in child.cmdline():
                found[part] = child
    return found


def _seconds(time: Timestamp) -> float:
    return time.ToNanoseconds() / 1e9


def _arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.logs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("database", nargs="?", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=12)
    return parser.parse_args(words)


if __name__ == "__main__":
    given = _arguments()
    asyncio.run(main(given.database, given.rate, given.seconds))
