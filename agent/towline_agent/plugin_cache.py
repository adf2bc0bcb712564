"""How much room the files of plugins take: what was used longest ago goes first, nothing in use ever goes."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from towline_agent.files import private_folder, remove_tree

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(slots=True)
class _Entry:
    size: int
    used_at: float
    paths: Sequence[Path]


class PluginCache:
    """Entries by name, bounded by `max_bytes` in all unless more is in use; `bin_folder` is where they end."""

    def __init__(self, max_bytes: int, bin_folder: Path) -> None:
        self._max_bytes = max_bytes
        remove_tree(bin_folder)
        self._bin = private_folder(bin_folder)
        self._numbers = itertools.count()
        self._entries: dict[str, _Entry] = {}
        self._users: Counter[str] = Counter()

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(entry.size for entry in self._entries.values())

    def hold(self, name: str) -> None:
        """Keeps an entry, there or still to come, until it is released as often as it was held."""
        self._users[name] += 1

    def release(self, name: str, now: float) -> None:
        """Ends one use of an entry."""
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name]
        if name in self._entries:
            self._entries[name].used_at = now

    def put(self, name: str, size: int, used_at: float, paths: Sequence[Path]) -> None:
        """Counts an entry in, or counts it anew."""
        self._entries[name] = _Entry(size, used_at, paths)

    async def shrink(self) -> None:
        """Removes what was used longest ago until the rest fits."""
        size, gone = self.size, list[Path]()
        if size <= self._max_bytes:
            return
        idle = sorted((entry.used_at, name) for name, entry in self._entries.items() if name not in self._users)
        for _, name in idle:
            if size <= self._max_bytes:
                break
            entry = self._entries.pop(name)
            size -= entry.size
            gone += [self.discard(path) for path in entry.paths if path.exists()]
            log.info("plugin_files_removed", name=name, bytes=entry.size)
        await asyncio.to_thread(_remove, gone)

    def discard(self, path: Path) -> Path:
        """Takes a path away at once, so that another may take its place; returns where it lies until it is removed."""
        if path.is_dir():
            path.chmod(0o700)  # a folder that changes its parent is written to
        return path.rename(self._bin / str(next(self._numbers)))


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink()
