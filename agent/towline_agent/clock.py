"""Time and chance as the agent sees them: elapsed time, time stamps, timers, and waits that a timer may end.

Leases are judged by elapsed time alone; the wall clock only labels log lines. Nothing else here reads a clock.
"""

import asyncio
import os
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Timer(Protocol):
    """A callback that is due later."""

    def cancel(self) -> None:
        """Makes the callback never run."""
        ...


class Clock(Protocol):
    """The one source of time and chance of the agent."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def micros(self) -> int:
        """Wall time in microseconds since 1970."""
        ...

    def jitter(self) -> float:
        """A number from 0 to 1, by chance."""
        ...

    def new_id(self) -> str:
        """A name that nobody else has."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Runs `callback` in the event loop after `seconds`."""
        ...


_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The clocks of the machine."""

    def monotonic(self) -> float:
        """Counts the time in which the machine was suspended, where the system can: leases do not sleep."""
        return time.clock_gettime(_ELAPSED)

    def micros(self) -> int:
        """Wall time in microseconds since 1970."""
        return time.time_ns() // 1000

    def jitter(self) -> float:
        """A number from 0 to 1, by chance."""
        return random.random()  # noqa: S311 - spreads retries, keeps no secret

    def new_id(self) -> str:
        """A UUIDv7: of two sessions of an agent the later one has the greater id, unless its clock was set back."""
        value = int.from_bytes(os.urandom(16), "big")
        value &= ~(0xFFFF_FFFF_FFFF << 80) & ~(0xF << 76) & ~(0x3 << 62)
        return str(uuid.UUID(int=value | (time.time_ns() // 1_000_000 << 80) | 0x7 << 76 | 0x2 << 62))

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Runs `callback` in the running event loop after `seconds`."""
        return asyncio.get_running_loop().call_later(seconds, callback)


class Signal:
    """A wake-up for one waiting loop; it is remembered until the loop takes it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wakes the waiter, now or at its next wait."""
        self._event.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Returns once set, or after `seconds`; takes the signal."""
        timer = None if seconds is None else self._clock.call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._event.clear()


@dataclass(slots=True)
class Backoff:
    """Waits between repeated failures: doubling from `first` to `cap` seconds, half of each drawn at random."""

    jitter: Callable[[], float]
    """A number from 0 to 1."""
    first: float = 0.1
    cap: float = 5.0
    failures: int = 0

    def next(self) -> float:
        """Counts a failure and says how long to wait."""
        longest = min(self.cap, self.first * 2 ** min(self.failures, 16))
        self.failures += 1
        return longest * (0.5 + self.jitter() / 2)

    def reset(self) -> None:
        """Forgets the failures."""
        self.failures = 0
