"""What the kernel's control group files say, and what is written into them. Pure: no file is opened.

Two dialects: cgroup v2 (`memory.max`, `cpu.max`) and v1 (`memory.limit_in_bytes`, `cpu.cfs_quota_us`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType

CPU_PERIOD_MICROSECONDS = 100_000
_BATCH_BYTES = 1024 * 1024
"""Less than so much below the limit, a larger request of a process may have failed."""


class Controller(StrEnum):
    """A part of the tree of groups that is of use here; v2 kills and freezes groups with or without the others."""

    MEMORY = "memory"
    PIDS = "pids"
    CPU = "cpu"
    FREEZE = "freezer"
    KILL = "kill"


LIMITING = (Controller.MEMORY, Controller.PIDS, Controller.CPU)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted hierarchy: of v2, or of v1 with its controllers."""

    version: int
    path: str
    root: str
    """The group that is seen at `path`: not `/` in containers that see a part only."""
    controllers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the processes of a group may use together; None is without limit."""

    memory_bytes: int | None = None
    processes: int | None = None
    """Processes and threads."""
    cpus: float | None = None


def mounts(mountinfo: str) -> list[Mount]:
    """Reads the hierarchies from `/proc/self/mountinfo`."""
    found: list[Mount] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), [*right.split(), "", "", ""][:3]
        if kind == "cgroup2":
            found.append(Mount(2, _unescaped(fields[4]), _unescaped(fields[3])))
        elif kind == "cgroup":
            found.append(Mount(1, _unescaped(fields[4]), _unescaped(fields[3]), frozenset(options.split(","))))
    return found


def memberships(text: str) -> dict[str, str]:
    """Reads `/proc/self/cgroup`: the group by controller of v1; that of v2 is under the empty name."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, names, group = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), group))
    return groups


def folder(mount: Mount, group: str) -> str | None:
    """Where a group lies in the file system; None if the mount does not show it."""
    try:
        below = PurePosixPath(group).relative_to(mount.root)
    except ValueError:
        return None
    return None if ".." in below.parts else str(PurePosixPath(mount.path, below))


def counters(text: str) -> dict[str, int]:
    """Reads lines of a name and a number, as in `memory.events` and `cpu.stat`; others are passed over."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdecimal():
            found[name] = int(value)
    return found


def resident_bytes(version: int, stat: str) -> int:
    """What processes hold and cannot give back (anonymous and shared memory), by `memory.stat`, without file cache."""
    found = counters(stat)
    own, shared = ("anon", "shmem") if version == 2 else ("total_rss", "total_shmem")
    return found.get(own, 0) + found.get(shared, 0)


def settings(version: int, controller: Controller, allowance: Allowance) -> list[tuple[str, str]]:
    """The files to write and their text, in order. What a kernel may lack is in `OPTIONAL`."""
    writers = _SETTINGS[version]
    return writers[controller](allowance) if controller in writers else []


OPTIONAL = frozenset(
    {"memory.swap.max", "memory.oom.group", "memory.swappiness", "memory.memsw.limit_in_bytes", "cpu.max"}
)
"""Kernels without swap accounting or bandwidth control do not have these."""


def _memory_v2(allowance: Allowance) -> list[tuple[str, str]]:
    if allowance.memory_bytes is None:
        return []
    return [("memory.max", str(allowance.memory_bytes)), ("memory.swap.max", "0"), ("memory.oom.group", "1")]


def _memory_v1(allowance: Allowance) -> list[tuple[str, str]]:
    if allowance.memory_bytes is None:
        return []
    limit = str(allowance.memory_bytes)
    return [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", limit), ("memory.swappiness", "0")]


def _pids(allowance: Allowance) -> list[tuple[str, str]]:
    return [] if allowance.processes is None else [("pids.max", str(allowance.processes))]


def _cpu_v2(allowance: Allowance) -> list[tuple[str, str]]:
    quota = _quota(allowance)
    return [] if quota is None else [("cpu.max", f"{quota} {CPU_PERIOD_MICROSECONDS}")]


def _cpu_v1(allowance: Allowance) -> list[tuple[str, str]]:
    quota = _quota(allowance)
    if quota is None:
        return []
    return [("cpu.cfs_period_us", str(CPU_PERIOD_MICROSECONDS)), ("cpu.cfs_quota_us", str(quota))]


def _quota(allowance: Allowance) -> int | None:
    return None if allowance.cpus is None else max(1000, round(allowance.cpus * CPU_PERIOD_MICROSECONDS))


_SETTINGS = MappingProxyType(
    {
        1: MappingProxyType({Controller.MEMORY: _memory_v1, Controller.PIDS: _pids, Controller.CPU: _cpu_v1}),
        2: MappingProxyType({Controller.MEMORY: _memory_v2, Controller.PIDS: _pids, Controller.CPU: _cpu_v2}),
    }
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the kernel has counted for a group; None is what it does not count here."""

    memory_bytes: int | None = None
    """Held now, without file cache."""
    peak_bytes: int | None = None
    """Largest use ever, with file cache."""
    cpu_seconds: float | None = None
    oom_kills: int = 0
    """Processes that the kernel killed for want of memory."""
    limit_hits: int = 0
    """How often the group was at its own memory limit and nothing could be given back."""
    refused_processes: int = 0
    """Forks that failed at the limit of processes."""


def reading(version: Mapping[Controller, int], files: Mapping[str, str]) -> Reading:
    """Puts together what the files of a group say; `files` holds those that could be read."""
    memory = version.get(Controller.MEMORY)
    events = counters(files.get("memory.events", "") + files.get("memory.oom_control", ""))
    return Reading(
        memory_bytes=None if memory is None else resident_bytes(memory, files.get("memory.stat", "")),
        peak_bytes=_number(files.get("memory.peak") or files.get("memory.max_usage_in_bytes")),
        cpu_seconds=_cpu_seconds(files),
        oom_kills=events.get("oom_kill", 0),
        limit_hits=events.get("oom", 0) if memory == 2 else _hits_v1(files),
        refused_processes=counters(files.get("pids.events", "")).get("max", 0),
    )


READ = MappingProxyType(
    {
        (1, Controller.MEMORY): (
            "memory.stat",
            "memory.max_usage_in_bytes",
            "memory.oom_control",
            "memory.limit_in_bytes",
        ),
        (2, Controller.MEMORY): ("memory.stat", "memory.peak", "memory.events"),
        (1, Controller.PIDS): ("pids.events",),
        (2, Controller.PIDS): ("pids.events",),
        (2, Controller.CPU): ("cpu.stat",),
        (2, Controller.KILL): ("cpu.stat",),
        (1, Controller.CPU): ("cpuacct.usage",),
    }
)
"""The files of a reading; not every kernel has all."""


def _cpu_seconds(files: Mapping[str, str]) -> float | None:
    usage = counters(files.get("cpu.stat", "")).get("usage_usec")
    if usage is not None:
        return usage / 1e6
    nanoseconds = _number(files.get("cpuacct.usage"))
    return None if nanoseconds is None else nanoseconds / 1e9


def _hits_v1(files: Mapping[str, str]) -> int:
    """v1 counts reclaims rather than hits, and not in all kernels; the largest use tells whether there was one."""
    peak, limit = (_number(files.get(f"memory.{name}")) for name in ("max_usage_in_bytes", "limit_in_bytes"))
    return 1 if peak is not None and limit is not None and peak >= limit - _BATCH_BYTES else 0


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdecimal() else None


def _unescaped(path: str) -> str:
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
