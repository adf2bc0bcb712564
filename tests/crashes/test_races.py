"""Two control planes on one database do something about the same thing, in every order (F15): exactly one wins.

The orders are those of whole transactions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import pytest
from lives import Life, Stage
from scenes import IDS, RACES, Outcomes, Props, Scene

from towline_controlplane.audit.auditor import audit_runs
from towline_controlplane.store import tables
from towline_controlplane.store.database import Database, Transaction

T = TypeVar("T")
Outcome = tuple[object, object]


class Gate:
    """Lets the transactions of one control plane through one at a time."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.passed = asyncio.Event()
        self._open = asyncio.Event()

    async def enter(self) -> None:
        """Waits for `let_through`."""
        self.arrived.set()
        await self._open.wait()
        self._open.clear()

    def leave(self) -> None:
        """Says that the transaction is over."""
        self.passed.set()

    async def let_through(self) -> None:
        """Returns once the transaction that waits is over."""
        self.arrived.clear()
        self.passed.clear()
        self._open.set()
        await self.passed.wait()


class GatedDatabase(Database):
    """Another database behind a gate."""

    def __init__(self, inner: Database, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    async def write(self, work: Callable[[Transaction], T]) -> T:
        await self._gate.enter()
        try:
            return await self._inner.write(work)
        finally:
            self._gate.leave()

    async def read(self, work: Callable[[Transaction], T]) -> T:
        await self._gate.enter()
        try:
            return await self._inner.read(work)
        finally:
            self._gate.leave()


async def play_in_order(
    stage: Stage, scene: Scene, choices: list[int]
) -> tuple[tuple[Any, Any], list[tuple[int, int]]]:
    """Plays a scene, choosing who goes next as told and the first for the rest; returns outcome and (choice, of)."""
    gates = [Gate(), Gate()]
    replicas = [Life(GatedDatabase(stage.database, gate), stage.clock) for gate in gates]
    committing = [asyncio.create_task(replica.rig.orchestrator.run()) for replica in replicas]
    acting = [asyncio.ensure_future(act(replica)) for act, replica in zip(scene.acts, replicas, strict=True)]
    made: list[tuple[int, int]] = []
    while True:
        waiting = [gate for gate, act in zip(gates, acting, strict=True) if await arrives(gate, act)]
        if not waiting:
            break
        choice = choices[len(made)] if len(made) < len(choices) else 0
        made.append((choice, len(waiting)))
        await waiting[choice].let_through()
    for task in committing:
        task.cancel()
    await asyncio.gather(*committing, return_exceptions=True)
    return (acting[0].result(), acting[1].result()), made


async def arrives(gate: Gate, act: "asyncio.Future[object]") -> bool:
    arriving = asyncio.ensure_future(gate.arrived.wait())
    await asyncio.wait([arriving, act], return_when=asyncio.FIRST_COMPLETED)
    arriving.cancel()
    return gate.arrived.is_set()


def following(made: list[tuple[int, int]]) -> list[int] | None:
    """The next choices in the order of all that there are, None after the last."""
    while made and made[-1][0] + 1 == made[-1][1]:
        made.pop()
    return [choice for choice, _ in made[:-1]] + [made[-1][0] + 1] if made else None


@pytest.mark.parametrize(("make", "outcomes"), RACES, ids=IDS)
def test_every_order_of_transactions(
    stage: Stage, make: Callable[[Props, Life], Awaitable[Scene]], outcomes: Outcomes
) -> None:
    async def scenario() -> None:
        props, seen, choices = await props_of(stage), set[Outcome](), list[int]()
        while choices is not None:
            scene = await set_up(stage, props, make)
            outcome, made = await play_in_order(stage, scene, choices)
            seen.add(outcome)
            await audited(stage.life(), scene.run_ids)
            await clear(stage, scene.run_ids)
            choices = following(made)
        assert seen == outcomes

    asyncio.run(scenario())


async def props_of(stage: Stage) -> Props:
    props, life = Props(stage), stage.life()
    await props.prepare(life)
    return props


async def set_up(stage: Stage, props: Props, make: Callable[[Props, Life], Awaitable[Scene]]) -> Scene:
    life = stage.life()
    found: list[Scene] = []

    async def work() -> None:
        for agent in props.agents:
            agent.rig = life.rig
            await agent.renew()
        found.append(await make(props, life))

    assert await life.survives(work())
    return found[0]


async def audited(life: Life, run_ids: Iterable[str]) -> None:
    blueprints = life.rig.orchestrator.blueprints
    breaches = await life.rig.database.read(lambda tx: audit_runs(tx, blueprints, sorted(set(run_ids))))
    assert breaches == []


async def clear(stage: Stage, run_ids: Iterable[str]) -> None:
    """Nothing of a scene is in the way of the next."""
    runs = tables.runs
    gone = sorted(set(run_ids))
    await stage.database.write(lambda tx: tx.connection.execute(runs.delete().where(runs.c.id.in_(gone))))
