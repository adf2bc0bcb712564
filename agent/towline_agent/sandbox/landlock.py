"""Landlock: which paths a process may use, whether it may connect, whom it may signal; all by the kernel's age.

The ruleset holds for the process and all that it forks or executes, and can only be tightened.
"""

import ctypes
import os
import stat
from collections.abc import Iterable
from typing import Final

from towline_agent.sandbox import syscalls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_VERSION: Final = (1 << 13) - 1
_FILE_ONLY: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_ADDED_BY_VERSION: Final = ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV))

TCP_VERSION: Final = 4
SCOPES_VERSION: Final = 6
_BIND_AND_CONNECT: Final = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11

READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
USE_DEVICE: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
WRITE: Final = _FIRST_VERSION | _REFER | _TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def version() -> int:
    """Returns the version of Landlock that the kernel has; raises OSError if it has none."""
    return syscalls.call("Landlock", _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))


def restrict(grants: Iterable[tuple[str, int]], *, deny_tcp: bool) -> None:
    """Leaves the calling process what is granted, path by path; paths that are not there grant nothing.

    Needs `no_new_privs`.
    """
    known = version()
    files = _FIRST_VERSION
    for since, access in _ADDED_BY_VERSION:
        files |= access if known >= since else 0
    network = _BIND_AND_CONNECT if deny_tcp and known >= TCP_VERSION else 0
    scopes = _ABSTRACT_SOCKETS_AND_SIGNALS if known >= SCOPES_VERSION else 0
    wanted = _Ruleset(files, network, scopes)
    size = ctypes.c_size_t(ctypes.sizeof(wanted) if known >= SCOPES_VERSION else 16 if known >= TCP_VERSION else 8)
    ruleset = syscalls.call("landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(wanted), size, ctypes.c_uint(0))
    try:
        for path, access in grants:
            _grant(ruleset, path, access & files)
        syscalls.call("landlock_restrict_self", _RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _grant(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = _PathRule(access if is_folder else access & _FILE_ONLY, descriptor)
        kind = ctypes.c_int(_PATH_BENEATH)
        what = f"landlock_add_rule {path}"
        syscalls.call(what, _ADD_RULE, ctypes.c_int(ruleset), kind, ctypes.byref(rule), ctypes.c_uint(0))
    finally:
        os.close(descriptor)
