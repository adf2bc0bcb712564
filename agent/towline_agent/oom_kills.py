"""How many processes around this one the kernel has killed for want of memory, by its own count.

The group that this process is in counts best: its own processes alone, whoever had no memory left. Without one it is
the count of the machine, in which everybody's are.
"""

from functools import cache
from pathlib import Path

from towline_agent import cgroup_files
from towline_agent.memory_room import surroundings

_VMSTAT = Path("/proc/vmstat")
_OF_GROUPS = ("memory.events.local", "memory.oom_control")


def counter(process: Path = Path("/proc/self"), machine: Path = _VMSTAT) -> Path:
    """Returns the file that counts closest to a process."""
    of_groups = [around.folder / name for around in surroundings(process) for name in _OF_GROUPS]
    return next((file for file in of_groups if _count(file) is not None), machine)


def count(file: Path | None = None) -> int:
    """Returns what a file counts so far, by default the one for this process; 0 where the kernel counts nothing."""
    return _count(file or _own_counter()) or 0


@cache
def _own_counter() -> Path:
    return counter()


def _count(file: Path) -> int | None:
    try:
        return cgroup_files.counters(file.read_text()).get("oom_kill")
    except OSError:
        return None
