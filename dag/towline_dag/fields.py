"""Reads the fields of a JSON object that came from outside, and collects all that is wrong with them.

Values are those of proto JSON: an unset field is missing, an unset enum may be `…_UNSPECIFIED`, and a 64-bit integer
may be a string of digits. A wrong field is noted and read as its default, so that reading goes on to the next one.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import TypeVar, cast

from towline_dag.limits import MAX_NAMES_TO_COMPARE, MAX_SUGGESTIONS, MAX_VIOLATIONS
from towline_dag.violation import Violation

_INTEGER = re.compile(r"-?[0-9]{1,19}")

Choice = TypeVar("Choice", bound=Enum)


class Violations:
    """What is wrong so far, each with its place; those above the limit are only counted."""

    def __init__(self) -> None:
        self._listed: list[Violation] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, field: str, message: str) -> None:
        """Notes one violation."""
        self._count += 1
        if self._count <= MAX_VIOLATIONS:
            self._listed.append(Violation(field, message))

    def suggestion(self, wanted: str, known: Iterable[str]) -> str:
        """Returns a hint at the most similar known name, or nothing; looks at the first names and mistakes only."""
        if self._count >= MAX_SUGGESTIONS:
            return ""
        similar = difflib.get_close_matches(wanted[:128], islice(known, MAX_NAMES_TO_COMPARE), n=1)
        return f"; did you mean {similar[0]!r}?" if similar else ""

    def listed(self) -> Sequence[Violation]:
        """Returns at most MAX_VIOLATIONS violations; the last one says how many more there are."""
        if self._count <= MAX_VIOLATIONS:
            return self._listed
        more = self._count - MAX_VIOLATIONS + 1
        return [*self._listed[:-1], Violation("", f"and {more} more")]


class Fields:
    """The fields of one object at `place`, such as `dag.nodes[3]`; the outermost one has no place."""

    def __init__(self, value: object, place: str, violations: Violations) -> None:
        self.place = place
        self.violations = violations
        self._values: Mapping[str, object] = {}
        if isinstance(value, Mapping):
            self._values = cast("Mapping[str, object]", value)
        elif value is not None:
            self.refuse("", "must be an object")

    def refuse(self, name: str, message: str) -> None:
        """Notes that a field, or with an empty name the object itself, is wrong."""
        self.violations.add(self._place_of(name) if name else self.place, message)

    def has(self, name: str) -> bool:
        """Tells whether the field is set."""
        return self._values.get(name) is not None

    def entries(self) -> Mapping[str, object]:
        """Returns all fields by name."""
        return self._values

    def raw(self, name: str) -> object:
        """Returns the field as it is."""
        return self._values.get(name)

    def object(self, name: str) -> "Fields":
        """Returns the fields of an object."""
        return Fields(self._values.get(name), self._place_of(name), self.violations)

    def objects(self, name: str) -> Sequence["Fields"]:
        """Returns the fields of each object in a list."""
        values = self._values.get(name)
        if isinstance(values, list):
            items = cast("list[object]", values)
            return [Fields(item, f"{self._place_of(name)}[{i}]", self.violations) for i, item in enumerate(items)]
        if values is not None:
            self.refuse(name, "must be a list")
        return ()

    def text(self, name: str, longest: int) -> str:
        """Returns a string of at most `longest` characters."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(name, "must be a string")
        elif len(value) > longest:
            self.refuse(name, f"has {len(value)} characters; the limit is {longest}")
        else:
            return value
        return ""

    def texts(self, name: str, pattern: re.Pattern[str], most: int) -> tuple[str, ...]:
        """Returns a list of at most `most` strings that match the pattern."""
        values = self._values.get(name)
        if values is None:
            return ()
        items = cast("list[object]", values) if isinstance(values, list) else [None]
        if len(items) > most:
            self.refuse(name, f"has {len(items)} entries; the limit is {most}")
        elif not all(isinstance(item, str) and pattern.fullmatch(item) for item in items):
            self.refuse(name, f"must be a list of strings of the form {pattern.pattern}")
        else:
            return tuple(map(str, items))
        return ()

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        """Returns an integer between `low` and `high`; zero stands for an unset one when it lies below."""
        value = self._values.get(name)
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if value is None or (value == 0 < low):
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(name, "must be an integer")
        elif not low <= value <= high:
            self.refuse(name, f"is {value}; it must be between {low} and {high}")
        else:
            return value
        return default

    def flag(self, name: str) -> bool:
        """Returns a boolean; an unset one is false."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "must be true or false")
            return False
        return bool(value)

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """Returns a number between `low` and `high`; zero stands for an unset one when it lies below."""
        value = self._values.get(name)
        if value is None or (value == 0 < low):
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.refuse(name, "must be a number")
        elif not low <= value <= high:
            self.refuse(name, f"is {value:g}; it must be between {low:g} and {high:g}")
        else:
            return float(value)
        return default

    def choice(self, name: str, default: Choice) -> Choice:
        """Returns a value of the enum of `default`, which stands for an unset one."""
        value = self._values.get(name)
        if value is None or value == "" or (isinstance(value, str) and value.endswith("_UNSPECIFIED")):
            return default
        choices = type(default)
        if isinstance(value, str) and value in choices.__members__:
            return choices[value]
        self.refuse(name, f"is {value!r}; it must be one of {', '.join(choices.__members__)}")
        return default

    def _place_of(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name
