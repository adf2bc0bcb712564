"""Where in a text each part of a document stands, so that what is wrong with it can be shown there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a text, counted from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


Places: TypeAlias = Mapping[str, Place]
"""Places by path (`dag.nodes[0].config`); the whole document is at the empty path."""


class NotReadableError(Exception):
    """A text is not what its format demands."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.message = message
        self.place = place


def nearest(places: Places, path: str) -> Place:
    """Returns the place of a path, or of the closest part around it: what is missing is shown where it should be."""
    while path and path not in places:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return places.get(path, Place(1, 1))


def member(path: str, key: str) -> str:
    """Returns the path of an object's member."""
    return f"{path}.{key}" if path else key
