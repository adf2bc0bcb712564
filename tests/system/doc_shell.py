"""A shell as a person has one: with a terminal that asks for passwords, and what it has started ends with it."""

import os
import pty
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from server_keeper import wait_until

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a script."""

    code: int
    stdout: str
    stderr: str


def run(
    script: str, folder: Path, environment: Mapping[str, str], password: Callable[[], str], timeout_seconds: float
) -> Told:
    """Runs a script with bash in a folder; whatever its terminal asks for is answered with the password."""
    ours, theirs = pty.openpty()
    # The first terminal that the leader of a session opens becomes the one that passwords are asked for at.
    (folder / "page.sh").write_text(f"exec <{os.ttyname(theirs)}\n{script}")
    out, err = (folder / name for name in ("stdout", "stderr"))
    with out.open("wb") as stdout, err.open("wb") as stderr:
        shell = subprocess.Popen(
            ["bash", str(folder / "page.sh")],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    ended = threading.Event()
    answering = threading.Thread(target=_answer, args=(ours, password, ended), daemon=True)
    answering.start()
    try:
        code = shell.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        code = -signal.SIGALRM
    finally:
        _end(shell)
        ended.set()
        answering.join()
        os.close(ours)
        os.close(theirs)
    return Told(code, out.read_text(), err.read_text())


def _answer(terminal: int, password: Callable[[], str], ended: threading.Event) -> None:
    while not ended.is_set():
        # Who asks leaves the cursor behind the question.
        if select.select([terminal], [], [], _LOOK_SECONDS)[0] and not os.read(terminal, 4096).endswith(b"\n"):
            os.write(terminal, f"{password()}\n".encode())


def _end(shell: "subprocess.Popen[bytes]") -> None:
    """Ends what is left of the shell's group, which a `towline up` in the background belongs to."""

    def is_gone() -> bool:
        shell.poll()
        try:
            os.killpg(shell.pid, 0)
        except ProcessLookupError:
            return True
        return False

    if not is_gone():
        os.killpg(shell.pid, signal.SIGTERM)
    wait_until(is_gone, "what a page has started does not end")
