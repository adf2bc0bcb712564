"""The process attributes of Linux that keep a process tree in hand, set for the calling process.

Refuses to go on when the kernel refuses: a tree without them could escape.
"""

import ctypes
import os
import signal

_SET_PDEATHSIG = 1
_SET_DUMPABLE = 4
_SET_CHILD_SUBREAPER = 36
_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Makes every descendant whose parent ends a child of this process."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int, signal_number: signal.Signals) -> None:
    """Has the kernel send a signal when `parent`, the thread that forked this process, ends; also if it already has."""
    _prctl(_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        signal.raise_signal(signal_number)


def refuse_new_privileges() -> None:
    """Makes set-user-id programs and file capabilities powerless below this process."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def refuse_inspection() -> None:
    """Keeps other processes of the same user from tracing this one and what it forks."""
    _prctl(_SET_DUMPABLE, 0)


def allow_inspection() -> None:
    """Takes back `refuse_inspection`, so that the memory of this process can be measured."""
    _prctl(_SET_DUMPABLE, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
