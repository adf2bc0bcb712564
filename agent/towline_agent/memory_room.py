"""The memory that attempts may be given: the machine's, or less where a control group around this agent allows less.

Containers and services are limited by a group at any height above them; each is looked at, for each has its own use.
What files only cache there counts as free, as it does for the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

from towline_agent import cgroup_files
from towline_agent.cgroup_files import Controller


@dataclass(frozen=True, slots=True)
class _Dialect:
    limits: tuple[str, ...]
    use: str
    cached: tuple[str, ...]
    """Lines of `memory.stat`."""


_DIALECTS: Final[Mapping[int, _Dialect]] = MappingProxyType(
    {
        1: _Dialect(("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
        2: _Dialect(("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file")),
    }
)
_SELF: Final = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Surrounding:
    """A group that this process is in, directly or by one below it."""

    folder: Path
    version: int

    def limit(self) -> int | None:
        """Returns what all in it may use together; None without limit."""
        found = [number for name in _DIALECTS[self.version].limits if (number := self._number(name)) is not None]
        return min(found, default=None)

    def free(self) -> int | None:
        """Returns what is left of the limit; None without limit."""
        limit, use = self.limit(), self._number(_DIALECTS[self.version].use)
        if limit is None or use is None:
            return None
        counted = cgroup_files.counters(self._read("memory.stat"))
        cached = sum(counted.get(name, 0) for name in _DIALECTS[self.version].cached)
        return max(0, limit - max(0, use - cached))

    def _number(self, name: str) -> int | None:
        text = self._read(name).strip()
        return int(text) if text.isdecimal() else None  # not `max`

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text()
        except OSError:
            return ""


def surroundings(process: Path = _SELF) -> tuple[Surrounding, ...]:
    """Returns the groups around a process that may limit its memory, innermost first, as far as they are seen."""
    try:
        mounts = cgroup_files.mounts((process / "mountinfo").read_text())
        groups = cgroup_files.memberships((process / "cgroup").read_text())
    except OSError:
        return ()
    found: list[Surrounding] = []
    for mount in mounts:
        if mount.version == 2 or Controller.MEMORY in mount.controllers:
            own = cgroup_files.folder(mount, groups.get("" if mount.version == 2 else Controller.MEMORY, "/"))
            if own is not None:
                found += [Surrounding(each, mount.version) for each in _up_to(Path(mount.path), Path(own))]
    return tuple(found)


def total_bytes(around: tuple[Surrounding, ...], machine: int) -> int:
    """Returns the most that can ever be used here; `machine` is what the machine has."""
    return min([machine, *(limit for each in around if (limit := each.limit()) is not None)])


def free_bytes(around: tuple[Surrounding, ...], machine: int) -> int:
    """Returns what is free now; `machine` is what the machine has free."""
    return min([machine, *(free for each in around if (free := each.free()) is not None)])


def measure_free(around: tuple[Surrounding, ...]) -> int:
    """Returns what is free on this machine now."""
    return free_bytes(around, psutil.virtual_memory().available)


def _up_to(top: Path, own: Path) -> list[Path]:
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(top)]
