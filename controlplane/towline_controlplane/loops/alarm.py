"""What a duty waits with that has to be on time: until its next moment, or until somebody wakes it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

LONGEST_WAIT_SECONDS = 1.0
"""A wake-up can be lost, with the replica that had cause to give it: a duty looks by itself this often."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Wakes the one duty that runs by it."""

    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Makes the duty look at once, or again if it is just looking."""
        self._woken.set()

    async def run(self, look: Callable[[], Awaitable[float]]) -> None:
        """Looks, waits as long as `look` says or until it is woken, and repeats until it is cancelled.

        One bad look is logged and never ends the duty (I30).
        """
        while True:
            self._woken.clear()
            try:
                seconds = await look()
            except Exception:
                log.exception("tick failed", duty=look.__qualname__)
                seconds = LONGEST_WAIT_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                continue
