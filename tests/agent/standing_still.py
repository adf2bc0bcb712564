"""Whether processes stand still, however they were made to: stopped one by one, or frozen with their control group."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
from supervisor_scenario import PATIENCE

from towline_agent import cgroup_files
from towline_agent.cgroup_files import Controller
from towline_agent.frozen_group import is_frozen

_STILL = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}


def below(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def still(pids: Iterable[int]) -> bool:
    return all(map(_is_still, pids))


def whole_tree_is_still(pid: int) -> bool:
    return still({pid, *below(pid)})


async def come_true(holds: Callable[[], bool]) -> None:
    """Returns once something holds; processes tell nobody when they stop."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _is_still(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() in _STILL or _waits_for_a_stopped_child(process) or _group_is_frozen(pid)
    except (psutil.NoSuchProcess, FileNotFoundError):  # it ended between two looks
        return True


def _waits_for_a_stopped_child(process: psutil.Process) -> bool:
    """Tells of a shell whose child was stopped between vfork and exec; without one it only starts a command."""
    waits = process.status() == psutil.STATUS_DISK_SLEEP
    return waits and any(child.status() in _STILL for child in process.children())


def _group_is_frozen(pid: int) -> bool:
    groups = cgroup_files.memberships(Path(f"/proc/{pid}/cgroup").read_text())
    for mount in cgroup_files.mounts(Path("/proc/self/mountinfo").read_text()):
        is_freezer = mount.version == 2 or Controller.FREEZE in mount.controllers
        folder = cgroup_files.folder(mount, groups.get("" if mount.version == 2 else Controller.FREEZE, "/"))
        if is_freezer and folder is not None and is_frozen(Path(folder), mount.version):
            return True
    return False
