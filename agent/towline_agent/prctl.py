"""The process attributes of Linux that keep a process tree in hand, set for the calling process.

Refuses to go on when the kernel refuses: a tree without them could escape.
"""

import ctypes
import errno
import os
import signal

_SET_PDEATHSIG = 1
_SET_DUMPABLE = 4
_CAPBSET_DROP = 24
_SET_CHILD_SUBREAPER = 36
_SET_NO_NEW_PRIVS = 38
_MOST_CAPABILITIES = 64

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Makes every descendant whose parent ends a child of this process."""
    set_attribute(_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int, signal_number: signal.Signals) -> None:
    """Has the kernel send a signal when `parent`, the thread that forked this process, ends; also if it already has."""
    signal_at_parents_end(signal_number)
    if os.getppid() != parent:
        signal.raise_signal(signal_number)


def signal_at_parents_end(signal_number: signal.Signals) -> None:
    """Has the kernel send a signal when the thread that forked this process ends, unless it already has."""
    set_attribute(_SET_PDEATHSIG, signal_number)


def refuse_new_privileges() -> None:
    """Makes set-user-id programs and file capabilities powerless below this process."""
    set_attribute(_SET_NO_NEW_PRIVS, 1)


def refuse_inspection() -> None:
    """Keeps other processes of the same user from tracing this one and what it forks."""
    set_attribute(_SET_DUMPABLE, 0)


def allow_inspection() -> None:
    """Takes back `refuse_inspection`, so that the memory of this process can be measured."""
    set_attribute(_SET_DUMPABLE, 1)


def drop_bounding_capabilities() -> None:
    """Keeps every capability from ever being gained again; needs CAP_SETPCAP."""
    for capability in range(_MOST_CAPABILITIES):
        if _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0) != 0 and ctypes.get_errno() != errno.EINVAL:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl({_CAPBSET_DROP}): {os.strerror(code)}")


def set_attribute(option: int, value: int, argument: int = 0) -> None:
    """Calls prctl."""
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(argument), 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
