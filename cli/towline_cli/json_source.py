"""JSON texts, read with the place of each part. Refuses what hides a mistake: a key that is there twice."""

import json
import re
from bisect import bisect_right
from typing import Final

from towline_cli.places import NotReadableError, Place, Places, member
from towline_sdk.documents import Json

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCALAR: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,\]}]+')


def read(text: str) -> tuple[Json, Places]:
    """Returns the value of a JSON text and where its parts stand; raises NotReadableError."""
    try:
        document: Json = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise NotReadableError(f"is not JSON: {error.msg}", Place(error.lineno, error.colno)) from None
    except (ValueError, RecursionError) as error:
        raise NotReadableError(f"is not JSON: {error}", Place(1, 1)) from None
    walk = _Walk(text)
    walk.value("")
    return document, walk.places


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


class _Walk:
    """One pass over a text that is known to be JSON."""

    def __init__(self, text: str) -> None:
        self.places: dict[str, Place] = {}
        self._text = text
        self._at = 0
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]

    def value(self, path: str) -> None:
        """Passes over a value and notes where it and its parts begin; a member is where its key is."""
        self._skip(_SPACE)
        self.places.setdefault(path, self._place())
        match self._text[self._at]:
            case "{":
                self._items(path, "}")
            case "[":
                self._items(path, "]")
            case _:
                self._skip(_SCALAR)

    def _items(self, path: str, end: str) -> None:
        self._at += 1
        self._skip(_SPACE)
        index, keys = 0, dict[str, Place]()
        while self._text[self._at] != end:
            self.value(self._key(path, keys) if end == "}" else f"{path}[{index}]")
            self._skip(_SPACE)
            if self._text[self._at] == ",":
                self._at += 1
                self._skip(_SPACE)
            index += 1
        self._at += 1

    def _key(self, path: str, keys: dict[str, Place]) -> str:
        place = self._place()
        key: str = json.loads(self._skip(_STRING))
        name = member(path, key)
        if key in keys:
            raise NotReadableError(f"has {name} twice: here and at {keys[key]}", place)
        keys[key] = self.places[name] = place
        self._skip(_SPACE)
        self._at += 1  # the colon
        return name

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        passed = found[0] if found else ""
        self._at += len(passed)
        return passed

    def _place(self) -> Place:
        line = bisect_right(self._lines, self._at)
        return Place(line, self._at - self._lines[line - 1] + 1)
