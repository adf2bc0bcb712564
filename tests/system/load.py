"""Runs that go on while a scenario breaks things, started by a client that repeats what was not answered."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

from processes import Rest
from side_file import SideFile, eventually

STEPS = 4
TERMINAL = {"SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT"}


@dataclass
class Load:
    """A number of small chains; every start carries an idempotency key."""

    rest: Rest
    side: SideFile
    runs: int = 8
    workflow_id: str = ""
    accepted: dict[str, str] = field(default_factory=dict[str, str])
    """Run ids by their idempotency keys."""

    def prepare(self) -> None:
        """Signs in and creates the workflow."""
        self.rest.sign_in()
        names = [f"s{number}" for number in range(STEPS)]
        dag = {
            "nodes": [self.side.node(name) for name in names],
            "edges": [{"from": a, "to": b} for a, b in itertools.pairwise(names)],
        }
        self.workflow_id = self.rest.post("/workflows", {"name": "load", "dag": dag})["id"]

    async def go_on(self) -> None:
        """Starts all runs, one after the other."""
        for number in range(self.runs):
            key = f"key-{number}"
            self.accepted[key] = await asyncio.to_thread(self._start, key)

    async def executed(self, steps: int) -> None:
        """Returns once so many more executions have ended."""
        before = self._ended()
        await eventually(lambda: self._ended() >= min(before + steps, self.runs * STEPS))

    async def check(self) -> None:
        """Waits for the end of all runs: each that was answered for is there once, and did what was recorded."""
        for key, run_id in self.accepted.items():
            assert await asyncio.to_thread(self._start, key) == run_id
            await eventually(lambda run_id=run_id: self._get(f"/runs/{run_id}")["state"] in TERMINAL)
            assert self._get(f"/runs/{run_id}")["state"] == "SUCCEEDED", self._get(f"/runs/{run_id}")
            await asyncio.to_thread(self.side.check, self.rest, run_id)
        assert len(set(self.accepted.values())) == self.runs
        assert {run["id"] for run in self._get("/runs?pageSize=100")["runs"]} == set(self.accepted.values())
        assert {each.run_id for each in self.side.executions()} == set(self.accepted.values())

    def _start(self, key: str) -> str:
        headers = {"Idempotency-Key": key}
        return self.rest.insist("POST", f"/workflows/{self.workflow_id}/execute", {"input": {}}, **headers)["id"]

    def _get(self, path: str) -> Any:
        return self.rest.insist("GET", path)

    def _ended(self) -> int:
        return sum(each.ended for each in self.side.executions())
