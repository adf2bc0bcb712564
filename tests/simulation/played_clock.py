"""The time of a played process, which a freeze stops."""

import asyncio

from virtual_loop import VirtualLoop


class PlayedClock:
    """The time of one played process, which stands still while it is frozen."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.frozen_since: float | None = None
        self._loop = loop
        self._changed = asyncio.Event()

    def freeze(self) -> None:
        """Stops it."""
        if self.frozen_since is None:
            self.frozen_since = self._loop.time()
            self._ring()

    def thaw(self) -> None:
        """Lets it go on."""
        if self.frozen_since is not None:
            self.frozen_since = None
            self._ring()

    async def spend(self, seconds: float) -> None:
        """Returns when so much of it has passed."""
        while True:
            changed, began = self._changed, self._loop.time()
            frozen = self.frozen_since is not None
            try:
                async with asyncio.timeout(None if frozen else max(seconds, 0.0)):
                    await changed.wait()
            except TimeoutError:
                return
            if not frozen:
                seconds -= self._loop.time() - began

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
