"""The folders of control groups: who is in them, what their files say, and how they are cleared away."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

V1_ORDER = "freezer.state"
THAW_V1 = "THAWED"
RESCAN_SECONDS = 0.002
KILL_SECONDS = 5.0
_LINKS_OF_A_LEAF = 2


def write(file: Path, text: str) -> None:
    """Writes into a file of the kernel's; raises OSError."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def words(file: Path) -> list[str]:
    """Returns the words of a file; none if it cannot be read."""
    try:
        return file.read_text().split()
    except OSError:
        return []


def numbers(file: Path) -> list[int]:
    """Returns the numbers of a file; none if it cannot be read."""
    return [int(word) for word in words(file)]


def pids_below(folder: Path) -> Iterator[int]:
    """Yields the processes of a group and of those below it."""
    yield from numbers(folder / "cgroup.procs")
    if _has_children(folder):
        for place, _, _ in os.walk(folder):
            yield from numbers(Path(place, "cgroup.procs"))


def let_die(folder: Path) -> None:
    """Lets processes go on that are frozen as by v1, where no kill reaches them; by v2 it does."""
    with suppress(FileNotFoundError):
        write(folder / V1_ORDER, THAW_V1)


def _has_children(folder: Path) -> bool:
    try:
        return folder.stat().st_nlink > _LINKS_OF_A_LEAF
    except OSError:
        return False


def remove(folder: Path) -> bool:
    """Removes a group and those below it as far as they are empty; whether it is gone."""
    places = os.walk(folder, topdown=False) if _has_children(folder) else [(str(folder),)]
    for place, *_ in places:
        with suppress(OSError):
            Path(place).rmdir()
    return not folder.exists()


def clear(base: Path, spare: frozenset[int]) -> None:
    """Kills what is in a group and below it, but for those to spare, and removes it."""
    until = time.monotonic() + KILL_SECONDS
    while (members := set(pids_below(base)) - spare) and time.monotonic() < until:
        for place, *_ in os.walk(base):
            let_die(Path(place))
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(RESCAN_SECONDS)
    remove(base)
