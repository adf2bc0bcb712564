"""A root of its own for an attempt: the readable part of the host, read-only; a private /tmp; its own folders.

Built by the first process of a mount and process namespace. Nothing of it outlives that namespace.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from towline_agent.sandbox import syscalls
from towline_agent.sandbox.syscalls import ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID
from towline_agent.sandbox.view import DEVICES, View

_PLACE: Final = "/sys"
"""Where it is put together: a folder that every host has, and that no plugin needs to see."""
TMP: Final = "/tmp"  # noqa: S108 - of the new root
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - of the new root
_MOST_INODES: Final = 65_536
_SMALL: Final = "size=1m,nr_inodes=4096,mode=755"
_BIND: Final = MS_BIND | syscalls.MS_REC
_DEVICE_LINKS: Final = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)


@dataclass(frozen=True, slots=True)
class Furniture:
    """What is put into a new root; all paths stay what they are outside."""

    view: View
    readable: tuple[str, ...]
    writable: tuple[str, ...]
    """The first is the home of its user."""
    temporary_bytes: int
    uid: int
    gid: int


def enter(furniture: Furniture) -> None:
    """Makes a new root that of the calling process, and the old one unreachable."""
    umask = os.umask(0o022)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("tmpfs", _PLACE, "tmpfs", MS_NOSUID | MS_NODEV, _SMALL)
    private = f"size={furniture.temporary_bytes},nr_inodes={_MOST_INODES},mode=1777"
    _mount_new(TMP, MS_NOSUID | MS_NODEV, private)
    _lay_out(furniture)
    syscalls.change_mounts(_PLACE, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, recursive=True)
    syscalls.change_mounts(_inside(TMP), 0, clear=ATTR_RDONLY)
    for path in furniture.writable:
        syscalls.mount(path, _inside(path), None, _BIND)
        syscalls.change_mounts(_inside(path), ATTR_NOSUID | ATTR_NODEV, recursive=True)
    _make_devices(private)
    syscalls.mount("proc", _inside("/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    syscalls.change_root(_PLACE)
    os.umask(umask)


def _inside(path: str) -> str:
    return _PLACE + path


def _mount_new(path: str, flags: int, options: str) -> None:
    Path(_inside(path)).mkdir(exist_ok=True)
    syscalls.mount("tmpfs", _inside(path), "tmpfs", flags, options)


def _lay_out(furniture: Furniture) -> None:
    for path, target in furniture.view.links:
        os.symlink(target, _inside(path))
    for path in ("/dev", "/proc", "/etc", "/var", *furniture.writable):
        os.makedirs(_inside(path), exist_ok=True)
    os.symlink(TMP, _inside("/var/tmp"))  # noqa: S108 - of the new root
    for path in (*furniture.view.readable, *furniture.readable):
        _show(path)
    _write_accounts(furniture)


def _show(path: str) -> None:
    place = _inside(path)
    if os.path.isdir(path):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    syscalls.mount(path, place, None, _BIND)


def _make_devices(private: str) -> None:
    _mount_new("/dev", MS_NOSUID | MS_NOEXEC, _SMALL)
    for path in DEVICES:
        os.close(os.open(_inside(path), os.O_CREAT | os.O_WRONLY, 0o644))
        syscalls.mount(path, _inside(path), None, MS_BIND)
    for path, target in _DEVICE_LINKS:
        os.symlink(target, _inside(path))
    _mount_new(SHARED_MEMORY, MS_NOSUID | MS_NODEV | MS_NOEXEC, private)
    syscalls.change_mounts(_inside("/dev"), ATTR_RDONLY)


def _write_accounts(furniture: Furniture) -> None:
    """Names for the ids that a plugin sees; it has no business with the accounts of the host."""
    home = furniture.writable[0]
    accounts = (
        ("passwd", f"plugin:x:{furniture.uid}:{furniture.gid}:plugin:{home}:/bin/sh\n", "root:x:0:0:root:/:/bin/sh\n"),
        ("group", f"plugin:x:{furniture.gid}:\n", "root:x:0:\n"),
    )
    for name, own, root in accounts:
        Path(_inside(f"/etc/{name}")).write_text(own + root)
