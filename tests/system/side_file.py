"""What plugins have really done: each execution says in a file that it has begun, goes on, and has ended.

A scenario compares it with what was recorded. A gated step ends only when its gate, or that of its attempt, is opened.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import PATIENCE_SECONDS, Rest

_LINE = '"$TOWLINE_RUN_ID $TOWLINE_NODE_ID $TOWLINE_ATTEMPT $TOWLINE_EXECUTION_KEY $$"'
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Execution:
    """One process that worked for an attempt; `first` and `last` are its first and last line in the file."""

    run_id: str
    node_id: str
    attempt: int
    key: str
    pid: int
    first: int
    last: int
    ended: bool


class SideFile:
    """A file that all executions append to, in the order in which things happen."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "executions"
        self._gates = folder / "gates"
        self._gates.mkdir()

    def node(self, node_id: str, *, gated: bool = False, **fields: Any) -> dict[str, Any]:
        """Returns a node that writes to the file."""
        gate = f"{self._gates}/{node_id}"
        waits = f'[ -e {gate} ] || [ -e "{gate}.$TOWLINE_ATTEMPT" ]'
        body = f"until {waits}; do {self._say('tick')}; sleep {_POLL_SECONDS}; done; " if gated else ""
        command = f"{self._say('begin')}; {body}echo done; {self._say('end')}"
        return {"id": node_id, "type": "SHELL", "config": {"command": command}, **fields}

    def open(self, node_id: str, attempt: int | None = None) -> None:
        """Lets the executions of a node end, or those of one attempt."""
        (self._gates / (node_id if attempt is None else f"{node_id}.{attempt}")).touch()

    def executions(self, run_id: str = "", node_id: str = "") -> list[Execution]:
        """Returns the executions so far, in the order in which they began; of a run or node if one is named."""
        found: dict[str, Execution] = {}
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        for number, line in enumerate(lines):
            what, run, node, attempt, key, pid = line.split()
            identity = f"{key} {attempt} {pid}"
            first = found[identity].first if identity in found else number
            found[identity] = Execution(run, node, int(attempt), key, int(pid), first, number, ended=what == "end")
        return [each for each in found.values() if run_id in ("", each.run_id) and node_id in ("", each.node_id)]

    async def begun(self, node_id: str, attempt: int = 1) -> Execution:
        """Returns the execution of an attempt once it has begun."""

        def found() -> list[Execution]:
            return [each for each in self.executions(node_id=node_id) if each.attempt == attempt]

        await eventually(found)
        return found()[-1]

    def check(self, rest: Rest, run_id: str, *, zombies: Collection[int] = ()) -> None:
        """Compares the executions of a run with what was recorded of it; `zombies` nobody could kill in time.

        An execution key is used a second time only where the history says that its first holder never confirmed.
        """
        history = list(rest.events(run_id))
        assert [int(event["sequence"]) for event in history] == list(range(1, len(history) + 1))
        lapsed = Counter(event["nodeId"] for event in history if event["type"] == "STEP_OFFER_EXPIRED")
        for step in rest.get(f"/runs/{run_id}/steps")["steps"]:
            node_id = step["nodeId"]
            attempts = rest.get(f"/runs/{run_id}/steps/{node_id}")["attempts"]
            executions = self.executions(run_id, node_id)
            recorded = {attempt["number"]: attempt["executionKey"] for attempt in attempts}
            assert len(set(recorded.values())) == len(attempts), "two attempts share an execution key"
            assert all(recorded.get(each.attempt) == each.key for each in executions), "an unknown execution"
            repeated = len(executions) - len({each.key for each in executions})
            assert repeated <= lapsed[node_id], f"{node_id} was executed twice under one key"
            _check_winner(step, attempts, executions, lapsed[node_id])
            _check_overlaps([each for each in executions if each.pid not in zombies])

    def _say(self, what: str) -> str:
        return f"echo {what} {_LINE} >> {self._file}"


async def eventually(holds: Callable[[], object]) -> None:
    """Returns once `holds()` is true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(_POLL_SECONDS)


def _check_winner(
    step: dict[str, Any], attempts: list[dict[str, Any]], executions: list[Execution], lapsed: int
) -> None:
    winners = [attempt for attempt in attempts if attempt["state"] == "SUCCEEDED"]
    assert len(winners) == (step["state"] == "SUCCEEDED"), f"{step['nodeId']}: {winners}"
    for winner in winners:
        marks = [each for each in executions if each.ended and each.key == winner["executionKey"]]
        assert 1 <= len(marks) <= 1 + lapsed, f"{step['nodeId']}: the winner left {len(marks)} marks"
        assert winner["executionKey"] == step["executionKey"]


def _check_overlaps(executions: list[Execution]) -> None:
    for earlier, later in itertools.pairwise(executions):
        assert earlier.last < later.first, f"{earlier} went on when {later} had begun"
