"""Rounds of complete and lease through the store's own functions: no engine, no orchestrator, but all the columns.

    python -m bench.store_rounds [sqlite,postgres] [1,16,128]

N steps, of eight to a run, are completed in one transaction (runs locked, steps and attempts loaded and saved, an event
each), and N others are leased in a second one. Both commits are synced.
"""

import asyncio
import itertools
import sys
from dataclasses import dataclass, field, replace

from bench.figures import Cost, Stopwatch, spread, table
from bench.store import Store, stores
from towline_controlplane.model import Attempt, AttemptState, Event, EventType, Run, RunState, Step, StepState
from towline_controlplane.store import leases, runs
from towline_controlplane.store.database import Database, Transaction
from towline_migrations import upgrade

_STEPS = 8
_RUNS = 250
_TRIALS = 5
_SECONDS = 1.0

StepKey = tuple[str, str]


@dataclass(slots=True)
class Rounds:
    """Takes N steps at a time through their lives."""

    database: Database
    batch: int
    held: list[StepKey] = field(default_factory=list[StepKey])
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def trial(self) -> Cost:
        """Returns what the steps of some time cost."""
        await self.database.write(self._fill)
        left, watch, finished = _RUNS * _STEPS, Stopwatch(), 0
        while left >= self.batch and watch.cost(1).wall < _SECONDS:
            finished += len(self.held)
            await self.database.write(self._complete)
            self.held = await self.database.write(self._lease)
            left -= len(self.held)
        return watch.cost(finished)

    def _fill(self, tx: Transaction) -> None:
        new = [_run(next(self._numbers)) for _ in range(_RUNS)]
        steps = [Step(run.id, f"node-{n}", n, StepState.READY, "queue", 0, 0) for run in new for n in range(_STEPS)]
        runs.insert_runs(tx, new, steps, ())

    def _lease(self, tx: Transaction) -> list[StepKey]:
        claimable = leases.lock_claimable(tx, ["queue"], self.batch)
        steps = runs.load_steps(tx, claimable.keys)
        locked = _by_id(runs.load_runs(tx, claimable.event_counts))
        events = [_event(locked, step, EventType.STEP_READY, tx.now) for step in steps]
        leased = [replace(s, state=StepState.LEASED, attempt=1, epoch=s.epoch + 1, agent_id="agent") for s in steps]
        runs.save_changes(tx, locked.values(), leased, [_attempt(step, tx.now) for step in steps], events)
        return [(step.run_id, step.node_id) for step in steps]

    def _complete(self, tx: Transaction) -> None:
        locked = _by_id(runs.load_runs(tx, runs.lock_runs(tx, {run_id for run_id, _ in self.held})))
        steps, attempts = runs.load_steps(tx, self.held), runs.load_newest_attempts(tx, self.held)
        events = [_event(locked, step, EventType.STEP_SUCCEEDED, tx.now) for step in steps]
        done = [replace(s, state=StepState.SUCCEEDED, output='{"text":"HELLO"}', end_time=tx.now) for s in steps]
        ended = [replace(a, state=AttemptState.SUCCEEDED, start_time=tx.now, end_time=tx.now) for a in attempts]
        runs.save_changes(tx, locked.values(), done, ended, events)


def _by_id(found: list[Run]) -> dict[str, Run]:
    return {run.id: run for run in found}


def _run(number: int) -> Run:
    return Run(
        id=f"run-{number:09}",
        workflow_id="workflow",
        version_id="version",
        owner_id="owner",
        state=RunState.RUNNING,
        input='{"text":"hello"}',
        priority=0,
        labels={},
        cancel_requested=False,
        open_steps=_STEPS,
        failed_steps=0,
        event_count=0,
        create_time=1,
    )


def _attempt(step: Step, now: int) -> Attempt:
    key = f"{step.run_id}:{step.node_id}"
    return Attempt(
        *(step.run_id, step.node_id, 1, key, AttemptState.OFFERED, 1, "agent", "session", "0" * 64),
        create_time=now,
        offer_expire_time=now + 5_000_000,
    )


def _event(locked: dict[str, Run], step: Step, kind: EventType, now: int) -> Event:
    run = locked[step.run_id]
    locked[run.id] = replace(run, event_count=run.event_count + 1)
    return Event(run.id, run.event_count + 1, now, kind, step.node_id, 1)


async def measure(store: Store, batch: int) -> list[Cost]:
    """Returns what each trial cost."""
    await asyncio.to_thread(upgrade, store.url)
    database = Database.open(store.url)
    rounds = Rounds(database, batch)
    found = [await rounds.trial() for _ in range(_TRIALS)]
    await database.close()
    return found


def main() -> None:
    names = sys.argv[1] if len(sys.argv) > 1 else "sqlite,postgres"
    batches = [int(each) for each in sys.argv[2].split(",")] if len(sys.argv) > 2 else [1, 16, 128]
    rows = [
        [
            f"{store.name}, N={batch}",
            spread(cost.per_second for cost in costs),
            spread((cost.cpu_us for cost in costs), 1),
        ]
        for batch in batches
        for store in stores(names)
        for costs in [asyncio.run(measure(store, batch))]
    ]
    print(table(["", "steps/s", "CPU µs/step of the control plane"], rows))


if __name__ == "__main__":
    main()
