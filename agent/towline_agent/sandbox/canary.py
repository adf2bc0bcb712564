"""A plugin that attacks: what it is refused is what the sandbox is worth on this host.

Each attack does nothing that lasts when it succeeds, and raises OSError when it is refused. The bait is laid out by the
prober: a process, files and sockets of the host that a plugin has no business with.
"""

import ctypes
import errno
import fcntl
import importlib
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

from towline_agent.sandbox import syscalls

_PTRACE_SEIZE: Final = 0x4206
_GET_NO_NEW_PRIVS: Final = 39
_LARGE_BYTES: Final = 17 * 1024**3
_MANY_FORKS: Final = 32
_MUCH_MEMORY: Final = 96 * 1024**2
_libc: Final = ctypes.CDLL(None, use_errno=True)

Bait = Mapping[str, Any]


def run(config: Bait) -> dict[str, str]:
    """Tries the attacks that `config` names; returns why each failed, and nothing for one that succeeded.

    Raises what keeps honest plugins from working: an interpreter or a shell that cannot be used.
    """
    importlib.import_module("colorsys")  # one that nothing has imported before
    for path in sys.path:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.listdir(path)
    subprocess.run(["/bin/sh", "-c", ":"], check=True)
    attacks: Sequence[str] = config["attacks"]
    return {name: _refusal(ATTACKS[name], config) for name in attacks}


def _refusal(attack: Callable[[Bait], None], bait: Bait) -> str:
    try:
        attack(bait)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _in_child(attack: Callable[[], None]) -> None:
    """Makes an attack in a process that is gone afterwards, for those that change the attacker."""
    child = os.fork()
    if child == 0:
        code = errno.EPERM
        try:
            attack()
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise OSError(0, f"killed by signal {os.WTERMSIG(status)}")
    if status:
        raise OSError(os.WEXITSTATUS(status), os.strerror(os.WEXITSTATUS(status)))


def _gain_privileges(_bait: Bait) -> None:
    if _libc.prctl(_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1:
        raise OSError(0, "no_new_privs is set")


def _be_root(_bait: Bait) -> None:
    if os.geteuid() != 0:
        raise OSError(0, f"runs as uid {os.geteuid()}")


def _write_large_file(_bait: Bait) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = Path("large")
    try:
        with path.open("wb") as file:
            file.truncate(_LARGE_BYTES)
    finally:
        path.unlink()


def _raise_limits(_bait: Bait) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _in_child(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1)))


def exhaust_memory() -> None:
    """Touches more than its group may hold, in a canary of its own: where the group holds, nothing is left to tell."""
    with mmap.mmap(-1, _MUCH_MEMORY) as held:
        for page in range(0, _MUCH_MEMORY, mmap.PAGESIZE):
            held[page] = 1


def exhaust_processes() -> None:
    """Forks more than its group may have; raises OSError where it holds."""
    children: list[int] = []
    try:
        for _ in range(_MANY_FORKS):
            child = os.fork()
            if child == 0:
                _pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _pause() -> NoReturn:
    while True:
        signal.pause()


def _be_agents_user(bait: Bait) -> None:
    if os.geteuid() != bait["agentUid"]:
        raise OSError(0, f"runs as uid {os.geteuid()}")


def _read_environment(bait: Bait) -> None:
    Path(f"/proc/{bait['agent']}/environ").read_bytes()


def _trace(bait: Bait) -> None:
    _ptrace(bait["agent"])


def _trace_own_child(_bait: Bait) -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        _ptrace(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _ptrace(pid: int) -> None:
    if _libc.ptrace(ctypes.c_long(_PTRACE_SEIZE), ctypes.c_long(pid), None, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _signal(bait: Bait) -> None:
    os.kill(bait["pid"], signal.SIGCONT)


def _see_process(bait: Bait) -> None:
    Path(f"/proc/{bait['pid']}").stat()


def _read_file(bait: Bait) -> None:
    Path(bait["file"]).read_bytes()


def _read_by_link(bait: Bait) -> None:
    link = Path("link")
    link.symlink_to(bait["file"])
    try:
        link.read_bytes()
    finally:
        link.unlink()


def _see_file(bait: Bait) -> None:
    Path(bait["file"]).stat()


def _write_file(bait: Bait) -> None:
    path = Path(bait["folder"], f"canary-{os.getpid()}")
    path.write_bytes(b"x")
    path.unlink()


def _connect_tcp(bait: Bait) -> None:
    with socket.create_connection(("127.0.0.1", bait["tcp"]), timeout=1):
        pass


def _send_udp(bait: Bait) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", bait["udp"]))
        sender.settimeout(0.2)
        sender.send(b"x")
        if sender.recv(1) != b"x":  # the bait answers
            raise OSError(0, "another answer")


def _connect_abstract(bait: Bait) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(b"\0" + bait["abstract"].encode())


def _open_vsock(_bait: Bait) -> None:
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM):
        pass


def _make_user_namespace(_bait: Bait) -> None:
    _in_child(lambda: _unshare(syscalls.CLONE_NEWUSER))


def _make_mount_namespace(_bait: Bait) -> None:
    _in_child(lambda: _unshare(syscalls.CLONE_NEWNS))


def _unshare(flags: int) -> None:
    if _libc.unshare(ctypes.c_int(flags)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _mount(_bait: Bait) -> None:
    def mount() -> None:
        _unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)  # else the host would get it too
        syscalls.mount("tmpfs", "/tmp", "tmpfs", 0)  # noqa: S108 - in a namespace that ends with the attack

    _in_child(mount)


def _use_capability(_bait: Bait) -> None:
    held = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cap")]
    if not any(int(mask, 16) for mask in held):
        raise OSError(0, "no set has any capability")


def _fill_tmp(bait: Bait) -> None:
    path = Path(os.environ.get("TMPDIR", "."), "filling")
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, bait["tmpBytes"])
    finally:
        path.unlink(missing_ok=True)


def _outlive(_bait: Bait) -> None:
    """Leaves a process of another session, and without a parent, that holds the lock `alive` as long as it lives."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with Path("alive").open("wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                Path("locked").touch()
                signal.pause()
        os._exit(0)
    os.wait()
    while not Path("locked").exists():
        os.sched_yield()


ATTACKS: Mapping[str, Callable[[Bait], None]] = MappingProxyType(
    {
        "gain_privileges": _gain_privileges,
        "be_root": _be_root,
        "write_large_file": _write_large_file,
        "raise_limits": _raise_limits,
        "exhaust_memory": lambda _: _in_child(exhaust_memory),
        "exhaust_processes": lambda _: exhaust_processes(),
        "be_agents_user": _be_agents_user,
        "read_environment": _read_environment,
        "trace": _trace,
        "trace_own_child": _trace_own_child,
        "signal": _signal,
        "see_process": _see_process,
        "read_file": _read_file,
        "read_by_link": _read_by_link,
        "see_file": _see_file,
        "write_file": _write_file,
        "connect_tcp": _connect_tcp,
        "send_udp": _send_udp,
        "connect_abstract": _connect_abstract,
        "open_vsock": _open_vsock,
        "make_user_namespace": _make_user_namespace,
        "make_mount_namespace": _make_mount_namespace,
        "mount": _mount,
        "use_capability": _use_capability,
        "fill_tmp": _fill_tmp,
        "outlive": _outlive,
    }
)
