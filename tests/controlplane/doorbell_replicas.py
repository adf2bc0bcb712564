"""Two replicas that ring each other over some wire, in the event loop of a test."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

from towline_controlplane.bus import Bell, InProcessDoorbell
from towline_controlplane.relay import Alone, Pace, Relay, Wire

PATIENCE_SECONDS = 30.0
STEADY = Pace(answer_seconds=PATIENCE_SECONDS)
"""Never takes a slow machine for a broken wire."""
QUICK = Pace(answer_seconds=0.5, echo_seconds=0.1, first_delay_seconds=0.01, longest_delay_seconds=0.1)
"""Finds out soon that a wire is broken, sometimes wrongly."""


@dataclass(slots=True)
class Health:
    """Whether a wire is up, as its relay says: None before the first word."""

    up: bool | None = None
    changes: list[bool] = field(default_factory=list[bool])
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def change(self, up: bool) -> None:
        async with self._changed:
            self.up = up
            self.changes.append(up)
            self._changed.notify_all()

    async def is_up(self) -> None:
        """Returns once the wire is up."""
        await self._wait_for(lambda: self.up is True)

    async def is_down(self) -> None:
        """Returns once the wire is down."""
        await self._wait_for(lambda: self.up is False)

    async def was_down(self, since: int) -> None:
        """Returns once the wire is up again, and has been down since there were so many changes."""
        await self._wait_for(lambda: self.up is True and False in self.changes[since:])

    async def _wait_for(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(condition)


@dataclass(frozen=True, slots=True)
class Replica:
    """A doorbell, and how its wire is."""

    doorbell: InProcessDoorbell
    health: Health


@contextlib.asynccontextmanager
async def replica(wire: Wire | None, pace: Pace = STEADY) -> AsyncGenerator[Replica]:
    """Yields a replica, whose wire may not be up yet; without a wire it is alone."""
    health = Health()
    relay = Relay(wire, pace) if wire else Alone()
    doorbell = InProcessDoorbell(relay.carry)
    running = asyncio.create_task(relay.run(doorbell, health.change))
    try:
        yield Replica(doorbell, health)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def replicas(new_wire: Callable[[], Wire] | None, pace: Pace = STEADY) -> AsyncGenerator[tuple[Replica, Replica]]:
    """Yields two replicas whose wires are up; without a wire both are the same."""
    async with replica(new_wire and new_wire(), pace) as near, replica(new_wire and new_wire(), pace) as far:
        await near.health.is_up()
        await far.health.is_up()
        yield near, near if new_wire is None else far


async def heard(bell: Bell) -> bool:
    """Tells whether the bell rings in the end."""
    return await bell.wait(PATIENCE_SECONDS)


async def passes(near: Replica, far: Replica, topic: str = "run:passage") -> None:
    """Returns once everything that was rung before has arrived: calls arrive in the order of their messages."""
    async with far.doorbell.listen([topic]) as bell:
        near.doorbell.ring([topic])
        assert await heard(bell)


Scenario = Callable[[Replica, Replica], Awaitable[None]]
