"""Readers of events and logs while gateways and control planes are killed: each line once, in order, none left out."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import PATIENCE_SECONDS, Installation, Rest, installed
from side_file import eventually

LINES_BETWEEN_KILLS = 200
WRITE = """
import os, time
def main(config, inputs):
    count = 0
    while not os.path.exists({stop!r}):
        for _ in range(10):
            print(count)
            count += 1
        time.sleep(0.01)
    return {{"count": count}}
"""


def dag(stop: Path) -> dict[str, Any]:
    """One step that writes until it is told to stop, and beside it a chain that makes events meanwhile."""
    write = {"id": "write", "type": "PYTHON", "config": {"code": WRITE.format(stop=str(stop))}, "timeoutMs": 300_000}
    chain = [{"id": f"n{number}", "type": "DELAY", "config": {"seconds": 0.3}} for number in range(12)]
    edges = [{"from": f"n{number}", "to": f"n{number + 1}"} for number in range(11)]
    return {"nodes": [write, *chain], "edges": edges}


@dataclass(slots=True)
class Reader:
    """A client that goes on where it was whenever its stream breaks off."""

    address: str
    path: str
    token: str
    seen: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    """Id and data of each event."""
    breaks: int = 0
    end: Any = None

    def read_all(self) -> None:
        """Returns after the event that ends the stream."""
        while self.end is None:
            try:
                for name, event_id, data in self._events():
                    if name == "end":
                        self.end = data
                    elif name != "error":
                        self.seen.append((event_id, data))
            except httpx.TransportError:
                pass
            self.breaks += self.end is None

    def _events(self) -> Iterator[tuple[str, str, Any]]:
        headers = {"Authorization": f"Bearer {self.token}"}
        if self.seen:
            headers["Last-Event-ID"] = self.seen[-1][0]
        url = f"http://{self.address}/api{self.path}"
        with (
            httpx.Client(trust_env=False, timeout=PATIENCE_SECONDS) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            assert answer.status_code in (200, 503, 504), answer.read()
            event: dict[str, str] = {}
            for line in answer.iter_lines() if answer.status_code == 200 else ():
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                elif "data" in event:
                    yield event["event"], event.get("id", ""), json.loads(event["data"])
                    event = {}


@pytest.mark.timeout(300)
def test_what_readers_see_has_no_gap_and_no_double(tmp_path: Path, postgres_url: str) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, replicas=2, DATABASE_URL=postgres_url) as installation:
            rest = Rest(installation.http)
            await asyncio.to_thread(rest.sign_in)
            workflow = await asyncio.to_thread(rest.post, "/workflows", {"name": "w", "dag": dag(tmp_path / "stop")})
            run_id = (await asyncio.to_thread(rest.post, f"/workflows/{workflow['id']}/execute", {}))["id"]
            paths = (f"/runs/{run_id}/events", f"/runs/{run_id}/logs?follow=true")
            events, lines = readers = [Reader(installation.http, path, rest.token) for path in paths]
            reading = [asyncio.create_task(asyncio.to_thread(reader.read_all)) for reader in readers]
            await kill_each(installation, lines)
            (tmp_path / "stop").touch()
            await asyncio.gather(*reading)
            assert min(events.breaks, lines.breaks) >= 2
            output = rest.get(f"/runs/{run_id}/steps/write")["output"]
            assert [data["text"] for _, data in lines.seen] == [str(number) for number in range(output["count"])]
            assert lines.end["complete"]
            assert [data["sequence"] for _, data in events.seen] == list(range(1, len(events.seen) + 1))
            assert events.seen[-1][1]["type"] == "RUN_SUCCEEDED"
            for reader in readers:
                again = Reader(installation.http, reader.path, rest.token)
                await asyncio.to_thread(again.read_all)
                assert (again.breaks, again.seen) == (0, reader.seen)

    asyncio.run(scenario())


async def kill_each(installation: Installation, lines: Reader) -> None:
    """Kills every part between agent and reader while lines flow, and starts it again."""
    for name in ("gateway", "controlplane", "controlplane-2", "gateway"):
        mark = len(lines.seen) + LINES_BETWEEN_KILLS
        await eventually(lambda mark=mark: len(lines.seen) >= mark)
        await installation.kill(name)
        await installation.restart(name)
    mark = len(lines.seen) + LINES_BETWEEN_KILLS
    await eventually(lambda: len(lines.seen) >= mark)
