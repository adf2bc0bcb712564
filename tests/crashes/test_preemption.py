"""One of two control planes is stopped at every single thing that it does while the other goes on (F15), in PostgreSQL.

The other goes on until it is done, or waits for a lock that the first one holds. SQLite has one writer, whose
transactions cannot be interleaved.
"""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
from faults import Faults
from lives import Life, Stage
from rig import FakeClock
from scenes import IDS, RACES, Outcomes, Props, Scene
from sqlalchemy import text
from test_races import audited, clear, props_of, set_up

from towline_controlplane.store.database import Transaction

_WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
_PATIENCE_SECONDS = 30


class Hold:
    """Stops a writer's thread until it is told to go on."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._resumed = threading.Event()

    def strike(self, _driver: object, _committed: bool) -> None:
        """Stops the thread."""
        self._loop.call_soon_threadsafe(self.stopped.set)
        assert self._resumed.wait(_PATIENCE_SECONDS)

    def resume(self) -> None:
        """Lets it go on."""
        self._resumed.set()


@pytest.fixture
def stages(postgres_url: str) -> Iterator[tuple[Stage, Stage, Stage]]:
    """Three ways into one database: of who sets the scene, who is stopped, and who goes on."""
    clock = FakeClock()
    stages = Stage(postgres_url, clock), Stage(postgres_url, clock), Stage(postgres_url, clock)
    yield stages
    for stage in stages:
        asyncio.run(stage.database.close())


@pytest.mark.parametrize("stopped", [0, 1], ids=["the first stopped", "the second stopped"])
@pytest.mark.parametrize(("make", "outcomes"), RACES, ids=IDS)
def test_one_stopped_at_every_point(
    stages: tuple[Stage, Stage, Stage],
    make: Callable[[Props, Life], Awaitable[Scene]],
    outcomes: Outcomes,
    stopped: int,
) -> None:
    async def scenario() -> None:
        stage, *_ = stages
        props = await props_of(stage)
        for at in itertools.count(1):
            scene = await set_up(stage, props, make)
            outcome, was_stopped = await play(stages, scene, at, stopped)
            assert outcome in outcomes
            await audited(stage.life(), scene.run_ids)
            await clear(stage, scene.run_ids)
            if not was_stopped:
                assert at > 1
                return

    asyncio.run(scenario())


async def play(
    stages: tuple[Stage, Stage, Stage], scene: Scene, at: int, stopped: int
) -> tuple[tuple[object, object], bool]:
    """Returns what came of the scene, and whether the one to be stopped got as far as that."""
    hold = Hold()
    lives = stages[1].life(Faults(at, hold.strike)), stages[2].life()
    committing = [asyncio.create_task(life.rig.orchestrator.run()) for life in lives]
    first = asyncio.ensure_future(scene.acts[stopped](lives[0]))
    stopping = asyncio.ensure_future(hold.stopped.wait())
    await asyncio.wait([first, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    second = asyncio.ensure_future(scene.acts[1 - stopped](lives[1]))
    while not second.done() and not first.done() and not await stages[0].database.read(somebody_waits):
        await asyncio.wait([second], timeout=0.001)
    hold.resume()
    ends = await first, await second
    for task in committing:
        task.cancel()
    await asyncio.gather(*committing, return_exceptions=True)
    return (ends[stopped], ends[1 - stopped]), hold.stopped.is_set()


def somebody_waits(tx: Transaction) -> bool:
    return tx.connection.execute(_WAITING).scalar_one() > 0
