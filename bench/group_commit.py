"""Steps through the orchestrator (lease judged, engine, attempts, history) beside the bare statements, in turns.

    python -m bench.group_commit [sqlite,postgres]

Agents of 8 slots report all they hold and ask for as much again; N is the number of reports in flight. A report
confirms the start of its step, as with every step that is shorter than a message's way.
"""

import asyncio
import sys
from collections.abc import Sequence

from bench.dags import fan
from bench.figures import Cost, spread, table
from bench.plant import plant
from bench.raw_statements import BATCHES, open_raw
from bench.store import Store, stores

_WIDTH = 8
_RUNS = 400
_RAW_RUNS = 1_500
_SLOTS = 8
_TRIALS = 5
_MOST_SECONDS = 2.0

Trial = tuple[Cost, Cost]
"""Bare statements, and the orchestrator right after them."""


async def measure(store: Store, in_flight: int) -> list[Trial]:
    """Returns trials with `in_flight` reports at a time."""
    slots = [_SLOTS] * (in_flight // _SLOTS) or [in_flight]
    trials: list[Trial] = []
    raw = open_raw(store)
    async with plant(store) as control_plane:
        version = await control_plane.workflow(fan(_WIDTH))
        workers = await control_plane.agents(slots)
        for _ in range(_TRIALS):
            raw.fill(_RAW_RUNS)
            floor = raw.measure(in_flight, _MOST_SECONDS / 4)
            await control_plane.start(version, _RUNS if in_flight > 1 else _RUNS // 4)
            trials.append((floor, await control_plane.work(workers, _MOST_SECONDS)))
            await control_plane.drain(workers)
    raw.close()
    return trials


def row(name: str, trials: Sequence[Trial]) -> list[str]:
    """Returns what trials came to."""
    return [
        name,
        spread(floor.per_second for floor, _ in trials),
        spread(ours.per_second for _, ours in trials),
        spread((ours.per_second / floor.per_second * 100 for floor, ours in trials), 1),
        spread((floor.cpu_us for floor, _ in trials), 1),
        spread((ours.cpu_us for _, ours in trials), 1),
    ]


def main() -> None:
    rows: list[list[str]] = []
    names = sys.argv[1] if len(sys.argv) > 1 else "sqlite,postgres"
    for batch in (int(each) for each in sys.argv[2].split(",")) if len(sys.argv) > 2 else BATCHES:
        rows += [row(f"{store.name}, N={batch}", asyncio.run(measure(store, batch))) for store in stores(names)]
    head = ["", "raw steps/s", "orchestrator steps/s", "ratio %", "raw CPU µs/step", "orchestrator CPU µs/step"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
