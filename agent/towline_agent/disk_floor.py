"""Keeps an agent from filling its disk: below a floor of free space it takes no more steps, until there is room again.

What runs goes on. A reserve of the disk is kept for the results of what runs: it is given up when they no longer fit,
and taken again once there is room.
"""

import os
from collections.abc import Callable
from pathlib import Path

import structlog

from towline_agent.clock import Clock, Signal

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

CHECK_SECONDS = 5.0
RECOVERY_SHARE = 1.1
"""So much of the floor must be free again: an agent must not change its mind with every file."""
MIB = 1024 * 1024


class Reserve:
    """A file that takes up room until the room is needed."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def take(self) -> None:
        """Takes the room, if there is that much."""
        if self._size == 0 or self._path.exists():
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size)
        except OSError as error:
            log.warning("no_reserve", reason=str(error))
            self._path.unlink()
        finally:
            os.close(descriptor)

    def give_up(self) -> bool:
        """Frees the room; tells whether there was any."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        log.warning("reserve_given_up", bytes=self._size)
        return True


class DiskFloor:
    """Looks at the free space; `changed` is called with why no more steps are taken, or with nothing."""

    def __init__(
        self,
        floor_bytes: int,
        free_bytes: Callable[[], int],
        reserve: Reserve,
        clock: Clock,
        changed: Callable[[str], object],
    ) -> None:
        self._floor = floor_bytes
        self._free_bytes = free_bytes
        self._reserve = reserve
        self._pause = Signal(clock)
        self._changed = changed
        self._below = False

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            self.tick()
            await self._pause.wait(CHECK_SECONDS)

    def tick(self) -> None:
        """Looks once."""
        free = self._free_bytes()
        if self._below and free >= self._floor * RECOVERY_SHARE:
            self._below = False
            log.info("disk_recovered", free_bytes=free)
            self._changed("")
        elif not self._below and free < self._floor:
            self._below = True
            log.error("disk_almost_full", free_bytes=free, floor_bytes=self._floor)
            self._changed(f"{free // MIB:,} MiB of its disk are free, less than {self._floor // MIB:,} MiB")
        if not self._below:
            self._reserve.take()


def free_bytes_of(folder: Path) -> int:
    """Returns how much of the disk of a folder may still be written."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
