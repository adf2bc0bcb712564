"""The filter of system calls: everything is allowed but what reaches around the other walls of the sandbox.

`program` is pure: it returns the filter as bytes of BPF. Once installed it holds for the process and all that it
forks or executes.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Collection
from types import MappingProxyType
from typing import Final

from towline_agent import prctl
from towline_agent.sandbox import syscalls

# By name: the number on x86_64 and on aarch64; None where the machine has no such call.
DENIED: Final = MappingProxyType(
    {
        # other processes
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "kcmp": (312, 272),
        "pidfd_getfd": (438, 438),
        # mounts and namespaces
        "mount": (165, 40),
        "umount2": (166, 39),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
        "open_tree": (428, 428),
        "move_mount": (429, 429),
        "fsopen": (430, 430),
        "fsconfig": (431, 431),
        "fsmount": (432, 432),
        "fspick": (433, 433),
        "mount_setattr": (442, 442),
        "open_tree_attr": (467, 467),
        "unshare": (272, 97),
        "setns": (308, 268),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "swapon": (167, 224),
        "swapoff": (168, 225),
        # the kernel's large and young parts
        "bpf": (321, 280),
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "userfaultfd": (323, 282),
        "perf_event_open": (298, 241),
        "fanotify_init": (300, 262),
        "lookup_dcookie": (212, 18),
        "modify_ldt": (154, None),
        # keys
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
        # the machine
        "kexec_load": (246, 104),
        "kexec_file_load": (320, 294),
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "delete_module": (176, 106),
        "reboot": (169, 142),
        "acct": (163, 89),
        "syslog": (103, 116),
        "settimeofday": (170, 170),
        "clock_settime": (227, 112),
        "clock_adjtime": (305, 266),
        "adjtimex": (159, 171),
        "vhangup": (153, 58),
        "iopl": (172, None),
        "ioperm": (173, None),
        "nfsservctl": (180, 42),
        # files behind the back of paths
        "open_by_handle_at": (304, 265),
    }
)

ISOLATED: Final = (socket.AF_UNIX,)
"""Families of sockets where the filter alone keeps a plugin off the network."""
CONNECTED: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""Families of sockets of a plugin that may use its network, the host's or one of its own."""

_ARCHITECTURES: Final = MappingProxyType({"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)})
_CLONE: Final = (56, 220)
_SOCKET: Final = (41, 198)
_IOCTL: Final = (16, 29)
_CLONE3: Final = 435
_X32_BIT: Final = 0x40000000
_NEW_NAMESPACES: Final = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
)
_TERMINAL_INJECTIONS: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
_SET_SECCOMP, _MODE_FILTER = 22, 2

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def program(families: Collection[int], machine: str = syscalls.MACHINE) -> bytes:
    """Returns the filter for a machine, with the families of sockets that may be opened.

    A call of another architecture than the machine's own is refused whatever it is.
    """
    try:
        column, architecture = _ARCHITECTURES[machine]
    except KeyError:
        raise OSError(errno.ENOSYS, f"seccomp: the sandbox does not know the machine {machine}") from None
    denied = [numbers[column] for numbers in DENIED.values() if numbers[column] is not None]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        *_unless(_JUMP_EQUAL, architecture, errno.EPERM),
        (_LOAD, 0, 0, _NUMBER),
        *_if(_JUMP_AT_LEAST, _X32_BIT, errno.ENOSYS),
        # Its flags lie in memory, where a filter cannot see them; the C libraries fall back to clone.
        *_if(_JUMP_EQUAL, _CLONE3, errno.ENOSYS),
    ]
    for number in denied:
        code += _if(_JUMP_EQUAL, number or 0, errno.EPERM)
    code += _when(_CLONE[column], _FIRST_ARGUMENT, _if(_JUMP_SET, _NEW_NAMESPACES, errno.EPERM))
    code += _when(
        _IOCTL[column],
        _SECOND_ARGUMENT,
        [step for request in _TERMINAL_INJECTIONS for step in _if(_JUMP_EQUAL, request, errno.EPERM)],
    )
    code += _when(_SOCKET[column], _FIRST_ARGUMENT, _unless_any(sorted(families), errno.EACCES))
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def install(filter_program: bytes) -> None:
    """Puts the calling process under the filter; needs `no_new_privs`."""
    code = ctypes.create_string_buffer(filter_program, len(filter_program))
    described = _Filter(len(filter_program) // 8, ctypes.addressof(code))
    prctl.set_attribute(_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(described))


def _if(jump: int, operand: int, error: int) -> list[Instruction]:
    return [(jump, 0, 1, operand), (_RETURN, 0, 0, _ERRNO | error)]


def _unless(jump: int, operand: int, error: int) -> list[Instruction]:
    return [(jump, 1, 0, operand), (_RETURN, 0, 0, _ERRNO | error)]


def _unless_any(operands: list[int], error: int) -> list[Instruction]:
    last = len(operands)
    tests = [(_JUMP_EQUAL, last - index, 0, operand) for index, operand in enumerate(operands)]
    return [*tests, (_RETURN, 0, 0, _ERRNO | error)]


def _when(number: int, argument: int, then: list[Instruction]) -> list[Instruction]:
    """Applies instructions to the low half of an argument of one call; what they let through is allowed."""
    body = [(_LOAD, 0, 0, argument), *then, (_RETURN, 0, 0, _ALLOW)]
    return [(_JUMP_EQUAL, 0, len(body), number), *body]
