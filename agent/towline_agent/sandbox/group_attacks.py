"""Attacks on control groups, which are made as those of attempts: bombs, and processes that flee from a kill.

A bomb goes off in a canary of its own, for where the group holds it ends with it; what counts is what the kernel has
counted for that group. The same bombs in the unconfined canary, whose group has room for them, show that they are real.
"""

import asyncio
import os
import select
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from towline_agent.cgroup_files import Allowance, Controller
from towline_agent.cgroups import Group, Hierarchy
from towline_agent.execution import Exit, Launch, OutputStream, Supervisor
from towline_agent.files import reachable_folder, remove_tree
from towline_agent.sandbox.levels import Confinement, Feature, Level

ESCAPE: Final = "escape_group"
ALONE: Final = frozenset({"exhaust_memory", "exhaust_processes", ESCAPE})
"""Attacks that confined canaries leave to this module."""

_MEMORY_BYTES: Final = 32 * 1024**2
_PROCESSES: Final = 16
_TIMEOUT_SECONDS: Final = 20.0
_SECONDS_TO_DIE: Final = 2.0
_FLEE: Final = """
for door; do echo 0 >"$door" || exit 1; done
(sleep 60 &)
echo fled
exec sleep 60
"""
_NEEDED: Final = MappingProxyType(
    {
        Feature.MEMORY_CGROUP: Controller.MEMORY,
        Feature.PIDS_CGROUP: Controller.PIDS,
    }
)


@dataclass(frozen=True, slots=True)
class OnGroups:
    """Why each attack failed, empty if it did not; and which features could not be attacked, and why."""

    refusals: Mapping[str, str]
    lacking: Mapping[Feature, str]


def can_contain(groups: Hierarchy) -> bool:
    """Whether there is what a contained attempt needs."""
    return not lacking(groups)


def lacking(groups: Hierarchy) -> dict[Feature, str]:
    """Returns the features for which this host has no controllers, with the reason."""
    missing = {
        feature: groups.missing.get(controller, f"no {controller} controller")
        for feature, controller in _NEEDED.items()
        if controller not in groups.folders
    }
    if not groups.folders:
        missing[Feature.GROUP_KILLED] = "; ".join(dict.fromkeys(groups.missing.values()))
    return missing


async def attack(supervisor: Supervisor, folder: Path, groups: Hierarchy) -> OnGroups:
    """Attacks the groups that there are, all at the same time."""
    without = lacking(groups)
    attacks = {
        Feature.MEMORY_CGROUP: ("exhaust_memory", lambda: _exhaust_memory(supervisor, folder)),
        Feature.PIDS_CGROUP: ("exhaust_processes", lambda: _exhaust_processes(supervisor, folder)),
        Feature.GROUP_KILLED: (ESCAPE, lambda: asyncio.to_thread(_escape, groups)),
    }
    made = [(name, begin()) for feature, (name, begin) in attacks.items() if feature not in without]
    found = await asyncio.gather(*(work for _, work in made))
    return OnGroups(dict(zip((name for name, _ in made), found, strict=True)), without)


async def _exhaust_memory(supervisor: Supervisor, folder: Path) -> str:
    ended = await _explode(supervisor, folder, "exhaust_memory")
    return "killed by the kernel" if ended.watch.by_kernel and ended.watch.kernel_kills else ""


async def _exhaust_processes(supervisor: Supervisor, folder: Path) -> str:
    ended = await _explode(supervisor, folder, "exhaust_processes")
    return "refused by the kernel" if ended.watch.refused_processes else ""


async def _explode(supervisor: Supervisor, folder: Path, bomb: str) -> Exit:
    root = folder / f"bomb-{bomb}"
    await asyncio.to_thread(reachable_folder, root)
    try:
        return await supervisor.run(_launch(root, bomb), _ignore)
    finally:
        await asyncio.to_thread(remove_tree, root)


def _ignore(_stream: OutputStream, _data: bytes) -> None:
    pass


def _launch(root: Path, bomb: str) -> Launch:
    return Launch(
        key=root.name,
        entry_point=f"python:towline_agent.sandbox.canary:{bomb}",
        work_dir=root,
        artifacts_dir=root,
        plugin_dir=None,
        environment={"PATH": os.defpath, "TMPDIR": str(root)},
        stdin=b"{}",
        timeout_seconds=_TIMEOUT_SECONDS,
        memory_bytes=_MEMORY_BYTES,
        output_bytes=1024,
        processes=_PROCESSES,
        confinement=Confinement(Level.L0),
    )


def _escape(groups: Hierarchy) -> str:
    """Without a shim or a namespace that would kill too: what flees from its parent ends with the group, or not."""
    try:
        group = groups.create(f"canary-{os.getpid()}", Allowance(processes=_PROCESSES))
    except OSError:
        return ""
    try:
        return _kill_who_flees(group)
    finally:
        group.kill()
        group.remove()


def _kill_who_flees(group: Group) -> str:
    doors = sorted({str(place / "cgroup.procs") for place in group.folders.values()})
    command = ["/bin/sh", "-c", _FLEE, "sh", *doors]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as main:  # noqa: S603 - its own
        if main.stdout is None or main.stdout.readline() != b"fled\n":
            return ""
        main.kill()
        main.wait()
        fled = group.pids()
        group.kill()
        gone, _, _ = select.select([main.stdout], [], [], _SECONDS_TO_DIE)  # ends with the last that holds it
    return "killed with its group" if fled and gone else ""
