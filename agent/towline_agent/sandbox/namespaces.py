"""Which namespaces an attempt gets. As root they are made directly; an ordinary user makes one of users first."""

import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from towline_agent.sandbox import syscalls
from towline_agent.sandbox.levels import Confinement, Level, Network

_ALWAYS: Final = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)
_HOST_NAME: Final = "towline"
_SET_FLAGS, _UP = 0x8914, 0x1


def needed(confinement: Confinement) -> int:
    """Returns the flags of the namespaces to fork into; 0 for none."""
    if confinement.level < Level.L3:
        return 0
    own_users = 0 if os.geteuid() == 0 else syscalls.CLONE_NEWUSER
    own_network = syscalls.CLONE_NEWNET if confinement.network is Network.OWN else 0
    return _ALWAYS | own_users | own_network


def furnish(confinement: Confinement) -> None:
    """Gives the new namespaces a name and, where the network is its own, a loopback interface."""
    _do("sethostname", lambda: socket.sethostname(_HOST_NAME))
    if confinement.network is Network.OWN:
        _do("loopback interface", _raise_loopback)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh22x", b"lo", _UP))


def _do(what: str, act: Callable[[], object]) -> None:
    """Names what was refused, as errors of these calls do not."""
    try:
        act()
    except OSError as error:
        raise OSError(error.errno, error.strerror, what) from error
