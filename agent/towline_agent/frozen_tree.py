"""Stops the processes below a process where they are, and lets them go on.

No look at a tree is certain, for its processes fork while they are stopped one by one. So each pass stops what still
runs, and the tree is taken for still once two passes in a row have found the same processes, all of them stopped. Later
passes catch whom somebody else has woken.
"""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from towline_agent import process_tree

_STILL_STATES = frozenset("TtZXx")
_FIRST_WAIT_SECONDS = 0.005
_LONGEST_WAIT_SECONDS = 0.5


@dataclass(slots=True)
class FrozenTree:
    """All that is below `root`, which itself goes on: it is the one that adopts orphans."""

    root: int
    due: float = 0.0
    """When the next pass has to be made, by the monotonic clock."""
    _wait_seconds: float = _FIRST_WAIT_SECONDS
    _before: frozenset[int] = frozenset()
    _stopped: set[int] = field(default_factory=set[int])

    def settle(self, now: float) -> bool:
        """Makes a pass; tells whether everything stands still."""
        members = process_tree.descendants(self.root)
        moving = [pid for pid in members if not _is_still(pid)]
        for pid in moving:
            _signal(pid, signal.SIGSTOP)
        self._stopped.update(moving)
        is_still = bool(members) and not moving and self._before == frozenset(members)
        self._before = frozenset(members)
        # A process that waits in the kernel stops only when it comes back from there: it is looked for less and less.
        self._wait_seconds = _LONGEST_WAIT_SECONDS if is_still else min(self._wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        self.due = now + self._wait_seconds
        return is_still

    def thaw(self) -> None:
        """Lets go on what was stopped here, parents last: what they find of their children is as it was."""
        for pid in reversed(process_tree.descendants(self.root)):
            if pid in self._stopped:
                _signal(pid, signal.SIGCONT)


def _is_still(pid: int) -> bool:
    """A process forks as long as one of its threads runs, whatever its first thread does."""
    try:
        return all(_state(thread) in _STILL_STATES for thread in Path("/proc", str(pid), "task").iterdir())
    except OSError:  # gone
        return True


def _state(thread: Path) -> str:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
