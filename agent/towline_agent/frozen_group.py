"""Stops the processes of a control group where they are, and lets them go on: none escapes, whatever it forks.

Two dialects: `cgroup.freeze` of v2, which a SIGKILL still gets through, and the freezer of v1, in which nothing dies
before it is let go on.
"""

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from towline_agent import cgroup_folders
from towline_agent.cgroup_folders import THAW_V1, V1_ORDER

_FIRST_WAIT_SECONDS = 0.005
_LONGEST_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Dialect:
    order: str
    freeze: str
    thaw: str
    state: str
    frozen: str
    """A line of `state` once all stand still."""


_DIALECTS: Final = MappingProxyType(
    {
        1: _Dialect(V1_ORDER, "FROZEN", THAW_V1, V1_ORDER, "FROZEN"),
        2: _Dialect("cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"),
    }
)


@dataclass(slots=True)
class FrozenGroup:
    """A group that was told to stand still; raises OSError if it cannot be told."""

    folder: Path
    version: int
    due: float = 0.0
    """When to look again, by the monotonic clock; never once it stands: nobody in it can wake it."""
    _wait_seconds: float = _FIRST_WAIT_SECONDS

    def __post_init__(self) -> None:
        self._tell(_DIALECTS[self.version].freeze)

    def settle(self, now: float) -> bool:
        """Looks whether everything stands still."""
        stands = is_frozen(self.folder, self.version)
        self.due = math.inf if stands else now + self._wait_seconds
        self._wait_seconds = min(self._wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        return stands

    def thaw(self) -> None:
        """Lets everything go on."""
        with suppress(FileNotFoundError):  # nobody is left in it, and it is gone
            self._tell(_DIALECTS[self.version].thaw)

    def _tell(self, order: str) -> None:
        cgroup_folders.write(self.folder / _DIALECTS[self.version].order, order)


def is_frozen(folder: Path, version: int) -> bool:
    """Tells whether all processes of a group stand still."""
    try:
        return _DIALECTS[version].frozen in (folder / _DIALECTS[version].state).read_text().splitlines()
    except OSError:
        return False


def open_thaw(folder: Path, version: int) -> int | None:
    """Returns a descriptor to write `THAW_V1` to, for who kills without a view of the group; None if none is needed."""
    return os.open(folder / V1_ORDER, os.O_WRONLY) if version == 1 else None
