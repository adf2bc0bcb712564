"""System calls for which Python has no name, by number, for the calling process.

Every failure is an OSError that says what was tried. Only x86_64 and aarch64 are known; elsewhere all of it is refused.
"""

import ctypes
import errno
import os
import platform
import signal
from types import MappingProxyType
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18

ATTR_RDONLY: Final = 1
ATTR_NOSUID: Final = 2
ATTR_NODEV: Final = 4

MACHINE: Final = platform.machine()

_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MNT_DETACH: Final = 2
_MOUNT_SETATTR: Final = 442
_CAPABILITY_VERSION_3: Final = 0x20080522
_CLONE, _PIVOT_ROOT, _CAPSET = "clone", "pivot_root", "capset"
_NUMBERS: Final = MappingProxyType(
    {
        "x86_64": {_CLONE: 56, _PIVOT_ROOT: 155, _CAPSET: 126},
        "aarch64": {_CLONE: 220, _PIVOT_ROOT: 41, _CAPSET: 91},
    }
)

# Keeps the interpreter's lock during a call: a fork must not give it away.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.restype = ctypes.c_int
_python = ctypes.pythonapi


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def call(what: str, number: int, *arguments: object) -> int:
    """Makes a system call by its number; `what` names the attempt in the error."""
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def fork_into(namespaces: int) -> int:
    """Forks as `os.fork` does, the child in new namespaces; if one is for processes, the child is its first."""
    number = _number(_CLONE)
    _python.PyOS_BeforeFork()
    pid = _libc.syscall(ctypes.c_long(number), ctypes.c_ulong(namespaces | signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    code = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone({namespaces:#x}): {os.strerror(code)}")
    return pid


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mounts a file system, or binds `source` where `kind` is None."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    if _libc.mount(*texts, ctypes.c_ulong(flags), options.encode() or None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def change_mounts(path: str, attributes: int, *, clear: int = 0, recursive: bool = False) -> None:
    """Sets and clears attributes of the mount at `path`, with those below it if asked for."""
    wanted = _MountAttributes(attributes, clear, 0, 0)
    flags = ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    where = ctypes.c_char_p(os.fsencode(path))
    call(f"mount_setattr {path}", _MOUNT_SETATTR, ctypes.c_int(_AT_FDCWD), where, flags, ctypes.byref(wanted), size)


def change_root(path: str) -> None:
    """Makes the mount at `path` the root, and everything outside it unreachable."""
    os.chdir(path)
    call(f"pivot_root {path}", _number(_PIVOT_ROOT), b".", b".")
    if _libc.umount2(b".", _MNT_DETACH) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"umount of the old root: {os.strerror(code)}")
    os.chdir("/")


def clear_capabilities() -> None:
    """Empties the effective, permitted and inheritable sets of this process."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    call("capset", _number(_CAPSET), ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def _number(name: str) -> int:
    try:
        return _NUMBERS[MACHINE][name]
    except KeyError:
        raise OSError(errno.ENOSYS, f"{name}: the sandbox does not know the machine {MACHINE}") from None
