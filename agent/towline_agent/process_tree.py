"""Looks at the processes below a process: which they are, what memory they hold, what time they have used.

Reads the kernel's own list of children, so that a look costs what the tree is large, not what the host runs.
A look is a moment: processes come and go beside it, and whoever needs certainty looks again.
"""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_HAS_CHILDREN_FILES = Path("/proc/thread-self/children").exists()


@dataclass(frozen=True, slots=True)
class Look:
    """What the processes below a process use together, at a moment."""

    memory_bytes: int = 0
    cpu_seconds: float = 0.0
    """Of those that are there and of those that were waited for."""
    tasks: int = 0
    """Processes and threads."""


def descendants(root: int) -> list[int]:
    """Returns the processes below `root`, parents before children, without `root` itself."""
    found: list[int] = []
    pending = [root]
    while pending:
        children = children_of(pending.pop())
        found += children
        pending += children
    return found


def children_of(pid: int) -> list[int]:
    """Returns the children of a process; none if it is gone."""
    try:
        return _listed_children(pid) if _HAS_CHILDREN_FILES else [child.pid for child in psutil.Process(pid).children()]
    except (OSError, psutil.NoSuchProcess):
        return []


def kill(pid: int) -> None:
    """Sends SIGKILL; a process that is gone by now is as good as killed."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def look(root: int, suspect_above: int) -> Look:
    """Measures what is below `root`.

    The plain sum of resident memory counts shared pages once per process and so is never too small. Only a sum above
    `suspect_above` is worth the dear exact one, in which each shared page counts once as far as it may be read.
    """
    pids = descendants(root)
    stats = [stat for pid in pids if (stat := _stat(pid)) is not None]
    own = _stat(root)
    resident = sum(stat.resident_bytes for stat in stats)
    ticks = sum(stat.ticks + stat.ticks_of_children for stat in stats) + (own.ticks_of_children if own else 0)
    return Look(
        memory_bytes=resident if resident <= suspect_above else sum(map(_proportional, pids)),
        cpu_seconds=ticks / _TICKS_PER_SECOND,
        tasks=sum(stat.threads for stat in stats),
    )


@dataclass(frozen=True, slots=True)
class _Stat:
    ticks: int
    ticks_of_children: int
    threads: int
    resident_bytes: int


def _stat(pid: int) -> _Stat | None:
    text = _read(Path("/proc", str(pid), "stat"))
    if not text:
        return None
    fields = text.rpartition(")")[2].split()  # from the third on: the second is a name that may hold anything
    user, system, user_below, system_below = map(int, fields[11:15])
    return _Stat(user + system, user_below + system_below, int(fields[17]), int(fields[21]) * _PAGE_BYTES)


def _listed_children(pid: int) -> list[int]:
    tasks = Path("/proc", str(pid), "task")
    return [int(child) for task in tasks.iterdir() for child in _read(task / "children").split()]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has just ended
        return ""


def _proportional(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        try:
            return process.memory_full_info().pss
        except psutil.AccessDenied:
            return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
