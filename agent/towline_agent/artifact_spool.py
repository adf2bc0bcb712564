"""Copies of artifacts on their way to the control plane: a folder for each attempt, and a bound for all together.

Whoever has no room waits, and keeps its slot meanwhile: while the control plane is away, a full spool stops this agent
from taking more work. Nothing in it outlives the process: a new one has new leases.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from towline_agent.files import private_folder, remove_tree


class ArtifactSpool:
    """Room by the key of the attempt."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = private_folder(folder)
        self._max_bytes = max_bytes
        self._freed = asyncio.Event()
        self._taken: dict[str, int] = {}
        for leftover in self._folder.iterdir():
            remove_tree(leftover)

    async def take_room(self, key: str, size: int, full: Callable[[], object]) -> Path:
        """Returns an empty folder for `size` bytes; what is larger than the bound gets it alone. `full`: it waits."""
        if self._is_full(size):
            full()
        while self._is_full(size):
            await self._freed.wait()
        self._taken[key] = size
        return private_folder(self._folder / key)

    def give_back(self, key: str) -> None:
        """Removes the copies of an attempt; none is fine."""
        if self._taken.pop(key, None) is not None:
            remove_tree(self._folder / key)
            self._freed.set()
            self._freed = asyncio.Event()

    def _is_full(self, size: int) -> bool:
        used = sum(self._taken.values())
        return bool(used) and used + size > self._max_bytes
