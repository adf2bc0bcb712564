"""Looks at the processes below a process: which they are and what memory they hold.

Reads the kernel's own list of children, so that a look costs what the tree is large, not what the host runs.
A look is a moment: processes come and go beside it, and whoever needs certainty looks again.
"""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

_HAS_CHILDREN_FILES = Path("/proc/thread-self/children").exists()


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


def memory_bytes(pids: Iterable[int], suspect_above: int) -> int:
    """Returns the resident memory that processes hold together.

    The plain sum counts shared pages once per process and so is never too small. Only a sum above `suspect_above` is
    worth the dear exact one, in which each shared page counts once as far as it may be read.
    """
    processes = [process for pid in pids if (process := _process(pid)) is not None]
    resident = sum(_resident(process) for process in processes)
    return resident if resident <= suspect_above else sum(_proportional(process) for process in processes)


def _listed_children(pid: int) -> list[int]:
    tasks = Path("/proc", str(pid), "task")
    return [int(child) for task in tasks.iterdir() for child in _read(task / "children").split()]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the thread has just ended
        return ""


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _proportional(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.AccessDenied:
        return _resident(process)
    except psutil.NoSuchProcess:
        return 0
