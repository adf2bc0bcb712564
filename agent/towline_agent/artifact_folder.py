"""Takes out of a folder what a plugin left there, and trusts nothing in it: regular files with one name, by descriptor.

Only called once the tree of the attempt is dead. What is kept is a copy whose bytes are those that were hashed, so
that nobody who still holds a descriptor can change it. Links, pipes, devices and odd names are left, and said so.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from towline_agent.artifact_names import problem_of
from towline_agent.beneath import READ, open_beneath

MAX_ARTIFACTS: Final = 1_000
MAX_ENTRIES: Final = 10_000
"""Files, folders and what is left, together: looking around ends there."""
_MAX_NOTES: Final = 20
_CHUNK_BYTES: Final = 1 << 20
_OPEN_FOLDER: Final = READ | os.O_DIRECTORY

_KINDS: Final = {
    stat.S_IFLNK: "is a symbolic link",
    stat.S_IFIFO: "is a pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


class TooMuch(Exception):
    """There is more than the limits allow; the message says what of."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A copy of an artifact, for the agent alone."""

    name: str
    size: int
    digest: str
    file: Path


@dataclass(slots=True)
class Findings:
    """What there is to take: sizes by name, as they were; and what was left, in words."""

    sizes: dict[str, int] = field(default_factory=dict[str, int])
    left: list[str] = field(default_factory=list[str])

    @property
    def bytes(self) -> int:
        """The sum of the sizes."""
        return sum(self.sizes.values())

    def leave(self, name: str, reason: str) -> None:
        """Notes that something is not taken; the notes themselves are few."""
        shown = ascii(name[:200])
        if len(self.left) < _MAX_NOTES:
            self.left.append(f"artifact {shown} was left: {reason}")
        elif len(self.left) == _MAX_NOTES:
            self.left.append("more artifacts were left")


def is_empty(folder: Path) -> bool:
    """Tells at once whether there is nothing at all, as after most attempts."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def look(folder: Path, max_bytes: int) -> Findings:
    """Finds what can be taken; raises TooMuch beyond `max_bytes` or MAX_ARTIFACTS, OSError if it cannot look."""
    findings = Findings()
    root = _open_root(folder)
    try:
        for seen, (name, parent) in enumerate(_walk(root, findings)):
            if seen >= MAX_ENTRIES:
                raise TooMuch(f"there are more than {MAX_ENTRIES:,} files and folders")
            _judge(name, os.stat(name.rpartition("/")[2], dir_fd=parent, follow_symlinks=False), findings)
            if len(findings.sizes) > MAX_ARTIFACTS:
                raise TooMuch(f"there are more than {MAX_ARTIFACTS:,}")
            if findings.bytes > max_bytes:
                raise TooMuch(f"they have more than {max_bytes:,} bytes together")
    finally:
        os.close(root)
    return findings


def take(folder: Path, findings: Findings, into: Path) -> list[Kept]:
    """Copies what was found into the empty folder `into`; what has changed since is left, and noted in `findings`."""
    kept: list[Kept] = []
    root = _open_root(folder)
    try:
        for number, (name, size) in enumerate(findings.sizes.items()):
            try:
                kept.append(_copy(root, name, size, into / str(number)))
            except _Changed as change:
                findings.leave(name, str(change))
    finally:
        os.close(root)
    return kept


class _Changed(Exception):
    """It is not what it was when it was found."""


def _open_root(folder: Path) -> int:
    """Opens the folder itself, which a plugin may have put something else in the place of."""
    workshop = os.open(folder.parent.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(workshop, f"{folder.parent.name}/{folder.name}", _OPEN_FOLDER)
    finally:
        os.close(workshop)


def _walk(root: int, findings: Findings) -> Iterator[tuple[str, int]]:
    """Yields all there is below the root that may be an artifact or is to be left: its path, and its open folder."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            here = open_beneath(root, path, _OPEN_FOLDER) if path else os.dup(root)
        except OSError as error:
            findings.leave(path, f"it cannot be opened: {error.strerror}")
            continue
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    name = f"{path}/{entry.name}" if path else entry.name
                    if entry.is_dir(follow_symlinks=False) and not problem_of(name):
                        waiting.append(name)
                    yield name, here
        finally:
            os.close(here)


def _judge(name: str, found: os.stat_result, findings: Findings) -> None:
    problem = problem_of(name) or _problem_of_kind(found)
    if problem:
        findings.leave(name, problem)
    elif stat.S_ISREG(found.st_mode):
        findings.sizes[name] = found.st_size


def _problem_of_kind(found: os.stat_result) -> str:
    if stat.S_ISREG(found.st_mode):
        return "" if found.st_nlink == 1 else "it has a second name (hard link)"
    return "" if stat.S_ISDIR(found.st_mode) else f"it {_KINDS.get(stat.S_IFMT(found.st_mode), 'is no regular file')}"


def _copy(root: int, name: str, size: int, target: Path) -> Kept:
    try:
        source = open_beneath(root, name, READ)
    except OSError as error:
        raise _Changed(f"it cannot be opened: {error.strerror or errno.errorcode.get(error.errno or 0)}") from error
    with open(source, "rb", buffering=0) as stream:
        found = os.fstat(source)
        if problem := _problem_of_kind(found):
            raise _Changed(problem)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            raise _Changed("it was changed after the attempt had ended")
        hashed, copied = hashlib.sha256(), 0
        with target.open("xb", buffering=0) as sink:
            while copied < size and (chunk := stream.read(min(_CHUNK_BYTES, size - copied))):
                hashed.update(chunk)
                sink.write(chunk)
                copied += len(chunk)
    if copied != size:
        target.unlink()
        raise _Changed("it was changed while it was read")
    return Kept(name, size, hashed.hexdigest(), target)
