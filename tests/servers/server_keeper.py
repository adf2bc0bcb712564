"""Servers that end with whoever uses them, however that ends.

A user holds a lock file for as long as it lives; the kernel lets go of it even after SIGKILL. The keeper, a process
that is the server's parent, waits until nobody holds the file, ends the server and removes its folder. Run as a script,
this is that process.
"""

import fcntl
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

_PATIENCE_SECONDS = 30.0

_started: list["subprocess.Popen[bytes]"] = []
"""Keepers outlive what started them, and so must these."""


def hold(path: Path) -> IO[str]:
    """Becomes one of the users that hold the lock file, until the returned file is closed or the process ends."""
    file = path.open("a")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def is_last(held: IO[str]) -> bool:
    """Tells whether nobody else holds the file; if so nobody can, until it is closed. Else it is held no longer."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def start(command: Sequence[str], folder: Path, users: Path, end_signal: signal.Signals) -> "subprocess.Popen[bytes]":
    """Starts a server that writes to `folder/log`; returns its keeper.

    When nobody holds `users` any more, the server gets the signal and the folder is removed.
    """
    arguments = [str(folder), str(users), str(_alive(users)), str(int(end_signal)), *command]
    with (folder / "log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _started[:] = [*(each for each in _started if each.poll() is None), keeper]
    return keeper


def is_running(users: Path) -> bool:
    """Tells whether a keeper waits for these users."""
    try:
        with _alive(users).open() as file:
            return not is_last(file)
    except FileNotFoundError:
        return False


def wait_for_end(users: Path) -> None:
    """Returns once the keeper of these users is gone, and so its server."""
    wait_until(lambda: not is_running(users), "the server has not ended")


def wait_until(condition: Callable[[], bool], failure: str) -> None:
    """Returns as soon as the condition holds; raises TimeoutError if that takes too long."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(failure)
        time.sleep(0.005)


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _alive(users: Path) -> Path:
    return users.with_name(f"{users.name}.keeper")


def _keep(folder: str, users: str, alive: str, end_signal: str, *command: str) -> None:
    with open(alive, "a") as own:
        fcntl.flock(own, fcntl.LOCK_EX)
        server = subprocess.Popen(command)
        left = threading.Event()
        watch = threading.Thread(
            target=_end_when_left, args=(server, folder, users, int(end_signal), left), daemon=True
        )
        watch.start()
        server.wait()
        if left.is_set():
            watch.join()


def _end_when_left(
    server: "subprocess.Popen[bytes]", folder: str, users: str, end_signal: int, left: threading.Event
) -> None:
    with open(users, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        left.set()
        server.send_signal(end_signal)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _keep(*sys.argv[1:])
