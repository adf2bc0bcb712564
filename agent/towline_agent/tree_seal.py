"""Tells whether a folder is still as it was when its contents were known to be right, without reading them again.

Every file and folder is known by its inode, mode, size and times. Whatever changes contents, names or modes changes
the time of the last change too, which nobody can set but by the clock of the machine: some µs for each file.
"""

import os
from collections.abc import Mapping
from pathlib import Path

Mark = tuple[int, ...]


class Seal:
    """The marks of a tree, its root included."""

    def __init__(self, marks: Mapping[str, Mark]) -> None:
        self._marks = dict(marks)

    @classmethod
    def of(cls, root: Path) -> "Seal":
        """Returns the seal of a tree as it is now."""
        marks = {str(root): _mark(str(root))}
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                marks[path] = _mark(path)
        return cls(marks)

    @classmethod
    def from_json(cls, document: Mapping[str, list[int]]) -> "Seal":
        """Reads what `to_json` wrote."""
        return cls({path: tuple(mark) for path, mark in document.items()})

    def to_json(self) -> dict[str, list[int]]:
        """Returns the seal as JSON can hold it."""
        return {path: list(mark) for path, mark in self._marks.items()}

    def __len__(self) -> int:
        return len(self._marks)

    @property
    def bytes(self) -> int:
        """What the files of the tree take."""
        return sum(mark[2] for mark in self._marks.values())

    def difference(self) -> str | None:
        """Returns the path of something that is not as it was, None if all is."""
        for path, mark in self._marks.items():
            try:
                if _mark(path) != mark:
                    return path
            except OSError:
                return path
        return None


def _mark(path: str) -> Mark:
    found = os.lstat(path)
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns
