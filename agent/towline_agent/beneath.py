"""Opens what lies below a folder that somebody else filled: no symbolic link on the way, no way out, no waiting.

`openat2` has the kernel promise it; where that is missing, every part of the path is opened by itself.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Final

_OPENAT2: Final = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_RESOLVE: Final = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_MISSING: Final = frozenset({errno.ENOSYS, errno.EPERM})
_RACED_TRIES: Final = 8
READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(folder: int, path: str, flags: int = READ) -> int:
    """Returns a descriptor of `path` below the open folder; raises OSError, ELOOP for a symbolic link on the way."""
    try:
        return open_in_kernel(folder, path, flags)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
    return open_by_parts(folder, path, flags)


def open_in_kernel(folder: int, path: str, flags: int = READ) -> int:
    """The same by `openat2`; raises OSError with ENOSYS or EPERM where it is not to be had."""
    how = _OpenHow(flags, 0, _RESOLVE)
    name = os.fsencode(path)
    for _ in range(_RACED_TRIES):
        descriptor = _libc.syscall(_OPENAT2, folder, name, ctypes.byref(how), ctypes.sizeof(how))
        if descriptor >= 0:
            return int(descriptor)
        if ctypes.get_errno() != errno.EAGAIN:  # something was moved meanwhile, so nothing is promised
            break
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


def open_by_parts(folder: int, path: str, flags: int = READ) -> int:
    """The same, one part of the path after the other."""
    *parents, last = path.split("/")
    if ".." in (*parents, last) or path.startswith("/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    here = os.dup(folder)
    try:
        for name in parents:
            here = _replaced(here, lambda above, name=name: os.open(name, READ | os.O_DIRECTORY, dir_fd=above))
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


def _replaced(old: int, make: Callable[[int], int]) -> int:
    new = make(old)
    os.close(old)
    return new
