"""Runs a whole agent in process, against the fakes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from towline.v1.agent_service_pb2 import AttemptResult
from towline_agent.agent import Agent, Options, describe
from towline_agent.execution import EndReason, Exit
from towline_agent.pulse import ThreadPulse
from towline_agent.testing import FakeClock, FakeControlPlane
from towline_agent.testing_processes import FakeSupervisor
from towline_agent.workshop import Surroundings

T = TypeVar("T")

DONE = Exit(EndReason.EXITED, exit_code=0, result=b'{"text": "HELLO"}')


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    """Runs a scenario in a loop of its own; a scenario that hangs fails."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await scenario()

    return asyncio.run(bounded())


@dataclass
class World:
    """A running agent and everything it talks to."""

    agent: Agent
    control_plane: FakeControlPlane
    supervisor: FakeSupervisor
    clock: FakeClock
    state_dir: Path
    life: asyncio.Task[None]

    def files(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.state_dir / folder).iterdir())

    async def acknowledged(self, node: str) -> None:
        """Returns once the agent has heard that its start of a node is known."""

        def named() -> int:
            return sum(held.lease.node_id == node for sync in self.control_plane.syncs for held in sync.held)

        await self.control_plane.until(lambda: named() > 1)  # the answer to the first came before the second was sent

    async def drained(self) -> None:
        self.agent.drain()
        await self.life


@asynccontextmanager
async def running(
    state_dir: Path,
    *,
    slots: int = 2,
    fake: FakeControlPlane | None = None,
    drain_seconds: float = 30.0,
) -> AsyncGenerator[World, None]:
    """An agent whose heartbeat looks around often in real time, and whose clock stands still."""
    fake = fake or FakeControlPlane()
    fake.interval_seconds = 0.05
    supervisor, clock = FakeSupervisor(), FakeClock()
    options = Options(describe(slots, {"zone": "a"}, "1"), state_dir, Surroundings("10.0.0.0/8", "/bin"), drain_seconds)
    agent = Agent(fake, ThreadPulse(fake), supervisor, options, lambda: 1024, clock)
    life = asyncio.create_task(agent.run())
    try:
        yield World(agent, fake, supervisor, clock, state_dir, life)
    finally:
        life.cancel()
        await asyncio.wait([life])


async def result_of(world: World, node: str = "step") -> AttemptResult:
    """Returns the result of a node once it is reported."""
    await world.control_plane.until(lambda: node in world.control_plane.results)
    return world.control_plane.results[node]


async def settled(world: World) -> None:
    """Drains, so that everything that can be reported is."""
    await world.drained()
    assert world.files("results") == []
    assert all(
        world.files(f"work/{place}/{folder}") == []
        for place in world.files("work")
        for folder in ("work", "tmp", "artifacts")
    )
    assert world.files("logs") == []
