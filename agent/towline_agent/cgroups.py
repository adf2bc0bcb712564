"""Control groups of the kernel: limits that a whole process tree cannot exceed, and a kill that it cannot escape.

Works below the group that this process is in, never beside it, and touches no group of others: whatever limits this
process limits its attempts too. v2 with delegated controllers, v1, a mixture of both, or nothing, as the host has it;
what is missing is said with its reason. Only a process that owns its group alone may rearrange it (v2 keeps processes
out of groups that have children), so `claim` comes before anything else is started.
"""

import fcntl
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from towline_agent import cgroup_files, cgroup_folders, frozen_group
from towline_agent.cgroup_files import LIMITING, Allowance, Controller, Mount, Reading
from towline_agent.cgroup_folders import KILL_SECONDS, RESCAN_SECONDS
from towline_agent.frozen_group import FrozenGroup

_PREFIX = "towline-"
_OWN_LEAF = "agent"
_MOST_NAMES = 20


class Unavailable(Exception):
    """No control group can be used here; the message says why."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Descriptors into a group, which are good wherever their holder may have gone by then."""

    entrances: Sequence[int] = ()
    """By which a process joins."""
    thaw: int | None = None
    """By which its processes are made mortal again if they are frozen; None where they always are."""

    def close(self) -> None:
        """Closes them."""
        for descriptor in (*self.entrances, *(() if self.thaw is None else (self.thaw,))):
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Group:
    """The group of one attempt: a folder in each hierarchy."""

    folders: Mapping[Controller, Path]
    versions: Mapping[Controller, int]

    def open(self) -> Doors:
        """Opens the group; raises OSError."""
        opened: list[int] = []
        try:
            for folder in self._places():
                opened += [os.open(folder / "cgroup.procs", os.O_WRONLY)]
            freezer = self.folders.get(Controller.FREEZE)
            thaw = None if freezer is None else frozen_group.open_thaw(freezer, self.versions[Controller.FREEZE])
        except OSError:
            Doors(opened).close()
            raise
        return Doors(opened, thaw)

    def freeze(self) -> FrozenGroup | None:
        """Has the processes stand still, those too that come later; None where the kernel cannot do that."""
        folder = self.folders.get(Controller.FREEZE)
        try:
            return None if folder is None else FrozenGroup(folder, self.versions[Controller.FREEZE])
        except OSError:
            return None

    def add(self, pid: int) -> None:
        """Moves a process, without those that it has forked before."""
        for folder in self._places():
            cgroup_folders.write(folder / "cgroup.procs", str(pid))

    def pids(self) -> set[int]:
        """The processes that are in the group now, or in groups that they have made below it."""
        return {pid for folder in self._places() for pid in cgroup_folders.pids_below(folder)}

    def strike(self) -> None:
        """Sends SIGKILL to all that is in the group now."""
        self._kill_once(self.pids())

    def kill(self, seconds: float = KILL_SECONDS) -> set[int]:
        """Kills until nobody is found twice, for so long at most; returns whom it found. `pids` tells who is left."""
        found: set[int] = set()
        until = time.monotonic() + seconds
        while (members := self.pids()) or (members := self.pids()):
            found |= members
            self._kill_once(members)
            if time.monotonic() > until:
                break
            time.sleep(RESCAN_SECONDS)
        return found

    def read(self) -> Reading:
        """What the kernel has counted so far; a group that is gone reads as nothing."""
        files: dict[str, str] = {}
        for controller, folder in self.folders.items():
            for name in cgroup_files.READ.get((self.versions[controller], controller), ()):
                with suppress(OSError):
                    files[name] = (folder / name).read_text()
        return cgroup_files.reading(self.versions, files)

    def remove(self) -> bool:
        """Removes the group if it is empty; whether it is gone."""
        gone = [cgroup_folders.remove(folder) for folder in self._places()]
        return all(gone)

    def _kill_once(self, members: Iterable[int]) -> None:
        if Controller.FREEZE in self.folders:
            cgroup_folders.let_die(self.folders[Controller.FREEZE])
        whole = self.folders.get(Controller.KILL)
        if whole is not None:
            with suppress(FileNotFoundError):
                cgroup_folders.write(whole / "cgroup.kill", "1")
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _places(self) -> set[Path]:
        return set(self.folders.values())


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where the groups of this agent's attempts are made, by what the kernel does for them there."""

    folders: Mapping[Controller, Path]
    versions: Mapping[Controller, int]
    missing: Mapping[Controller, str] = field(default_factory=dict[Controller, str])
    """Why a controller is not there."""
    locks: tuple[int, ...] = ()
    """Descriptors held as long as the agent lives: a place whose lock is free belongs to a dead one."""

    @classmethod
    def none(cls, reason: str) -> Self:
        """Where no groups are used."""
        return cls({}, {}, dict.fromkeys(LIMITING, reason))

    def create(self, name: str, allowance: Allowance) -> Group:
        """Makes an empty group with its limits; raises OSError. Swap counts as none: what does not fit is killed."""
        wanted = {
            controller: folder / name
            for controller, folder in self.folders.items()
            if controller is not Controller.CPU or allowance.cpus is not None
        }
        group = Group(wanted, self.versions)
        try:
            for folder in set(wanted.values()):
                folder.mkdir()
            for controller, folder in wanted.items():
                for file, text in cgroup_files.settings(self.versions[controller], controller, allowance):
                    _set(folder / file, text)
        except OSError:
            group.remove()
            raise
        return group

    def dissolve(self) -> None:
        """Kills what is left in the groups and removes them all, but for the one that this process is in itself."""
        for folder in set(self.folders.values()):
            cgroup_folders.clear(folder, spare=frozenset({os.getpid()}))
        for lock in self.locks:
            os.close(lock)

    def encode(self) -> dict[str, Any]:
        """As JSON, for another process of this agent."""
        return {
            "folders": {controller.value: str(folder) for controller, folder in self.folders.items()},
            "versions": {controller.value: version for controller, version in self.versions.items()},
        }

    @classmethod
    def decode(cls, document: Mapping[str, Any]) -> Self:
        """Reads what `encode` wrote."""
        return cls(
            {Controller(name): Path(folder) for name, folder in document["folders"].items()},
            {Controller(name): version for name, version in document["versions"].items()},
        )


NO_GROUPS = Hierarchy.none("no control groups are used")


def join(entrances: Iterable[int]) -> None:
    """Moves the calling process into an opened group, and with it all that it forks from now on; raises OSError."""
    for entrance in entrances:
        os.write(entrance, b"0")


def claim(process: Path = Path("/proc/self")) -> Hierarchy:
    """Makes this agent's own place below the group that it is in, and clears away those of agents that are dead.

    Raises:
        Unavailable: Nothing can be had here.
    """
    try:
        mounts = cgroup_files.mounts((process / "mountinfo").read_text())
        groups = cgroup_files.memberships((process / "cgroup").read_text())
    except OSError as error:
        raise Unavailable(f"the groups of this process cannot be read: {error.strerror}") from error
    search = _Search(mounts, groups)
    search.run()
    search.tidy()
    if not search.folders:
        raise Unavailable("; ".join(dict.fromkeys(search.missing.values())) or "no hierarchy is mounted")
    return Hierarchy(search.folders, search.versions, search.missing, tuple(search.locks))


class _Search:
    """Looks for each controller, in v2 first."""

    def __init__(self, mounts: Iterable[Mount], groups: Mapping[str, str]) -> None:
        self.folders: dict[Controller, Path] = {}
        self.versions: dict[Controller, int] = {}
        self.missing: dict[Controller, str] = {}
        self.locks: list[int] = []
        self._bases: dict[Path, int] = {}
        self._mounts = list(mounts)
        self._groups = groups

    def run(self) -> None:
        """Fills what is found and what is missing."""
        for mount in self._mounts:
            if mount.version == 2:
                self._take_v2(mount)
        for controller in (*LIMITING, Controller.FREEZE):
            if controller not in self.folders:
                self._take_v1(controller)
        self.missing.pop(Controller.FREEZE, None)  # where it is not, processes are stopped one by one

    def tidy(self) -> None:
        """Removes places in which nothing was found, and lets go of them."""
        for base, lock in self._bases.items():
            if base in self.folders.values():
                self.locks.append(lock)
            else:
                cgroup_folders.remove(base)
                os.close(lock)

    def _take_v2(self, mount: Mount) -> None:
        own = cgroup_files.folder(mount, self._groups.get("", "/"))
        if own is None:
            return
        try:
            base = self._make_base(Path(own))
        except OSError as error:
            self._miss((*LIMITING, Controller.KILL), f"{own}: {error.strerror}")
            return
        if (base / "cgroup.kill").exists():
            self._have(Controller.KILL, base, 2)
        else:
            self._miss((Controller.KILL,), "this kernel cannot kill a whole group (before 5.14)")
        if (base / "cgroup.freeze").exists():
            self._have(Controller.FREEZE, base, 2)
        offered = [name for name in LIMITING if name.value in cgroup_folders.words(Path(own, "cgroup.controllers"))]
        refused = _delegate(Path(own), base, offered) if offered else ""
        for controller in LIMITING:
            if controller in cgroup_folders.words(base / "cgroup.subtree_control"):
                self._have(controller, base, 2)
            else:
                self._miss((controller,), refused or f"{own} has no {controller} controller")

    def _take_v1(self, controller: Controller) -> None:
        mount = next((mount for mount in self._mounts if controller in mount.controllers), None)
        own = None if mount is None else cgroup_files.folder(mount, self._groups.get(controller, "/"))
        if own is None:
            self.missing.setdefault(controller, f"no {controller} controller is mounted")
            return
        try:
            self._have(controller, self._make_base(Path(own)), 1)
        except OSError as error:
            self._miss((controller,), f"{own}: {error.strerror}")

    def _have(self, controller: Controller, base: Path, version: int) -> None:
        self.folders[controller] = base
        self.versions[controller] = version
        self.missing.pop(controller, None)

    def _miss(self, controllers: Iterable[Controller], reason: str) -> None:
        self.missing.update(dict.fromkeys(controllers, reason))

    def _make_base(self, own: Path) -> Path:
        for left in own.glob(f"{_PREFIX}*"):
            _clear_if_dead(left)
        for number in range(_MOST_NAMES):
            base = own / f"{_PREFIX}{os.getpid()}-{number}"
            try:
                base.mkdir()
                descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
            except (
                FileExistsError,
                FileNotFoundError,
            ):  # of another pid namespace, or just cleared away
                continue
            if _locked(descriptor) and base.exists():
                self._bases[base] = descriptor
                return base
            os.close(descriptor)
        raise FileExistsError(17, "no name is free")


def _clear_if_dead(base: Path) -> None:
    try:
        descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        if _locked(descriptor):
            cgroup_folders.clear(base, spare=frozenset())
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _delegate(own: Path, base: Path, offered: Iterable[Controller]) -> str:
    """Hands controllers down to the groups to come; returns why that failed, else nothing."""
    try:
        if (own / "cgroup.type").exists():  # only the root of all groups has none, and keeps its processes
            _move_aside(own, base / _OWN_LEAF)
        for folder in (own, base):
            for controller in offered:
                if controller not in cgroup_folders.words(folder / "cgroup.subtree_control"):
                    cgroup_folders.write(folder / "cgroup.subtree_control", f"+{controller}")
    except OSError as error:
        return f"{own}: {error.strerror}"
    return ""


def _move_aside(own: Path, leaf: Path) -> None:
    others = set(cgroup_folders.numbers(own / "cgroup.procs")) - {os.getpid()}
    if others:
        raise OSError(16, f"{len(others)} other processes are in the agent's group; start it in a group of its own")
    leaf.mkdir()
    cgroup_folders.write(leaf / "cgroup.procs", "0")


def _set(file: Path, text: str) -> None:
    try:
        cgroup_folders.write(file, text)
    except OSError:
        if file.name not in cgroup_files.OPTIONAL:
            raise
