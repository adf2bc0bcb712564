"""YAML texts, read with the place of each part, as far as they say what JSON can say.

Words mean what YAML 1.2 makes of them: `no`, `on` and `2026-01-01` are strings. Refused are tags, keys that are there
twice, keys that are not scalars, several documents in one, and aliases that make a small text a large document.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn, cast

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from towline_cli.places import NotReadableError, Place, Places, member
from towline_sdk.documents import Json

MOST_DEPTH: Final = 64
MOST_VALUES: Final = 1_000_000
"""In a document, with what its aliases repeat."""

_STRING_TAGS: Final = (None, "!", "tag:yaml.org,2002:str")
_WORDS: Final[dict[str, Json]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,400}")
_BASED: Final = re.compile(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read(text: str) -> tuple[Json, Places]:
    """Returns the value of a YAML text and where its parts stand; raises NotReadableError."""
    try:
        builder = _Builder(_events(text))
        return builder.document(), builder.places
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        raise NotReadableError(f"is not YAML: {error.problem or error.context}", place) from None
    except yaml.YAMLError as error:
        raise NotReadableError(f"is not YAML: {error}", Place(1, 1)) from None


def _events(text: str) -> Iterator[Event]:
    # The one in C is ten times as fast, and not in every build of the library.
    loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return iter(cast("Iterator[Event]", yaml.parse(text, Loader=loader)))


class _Builder:
    """Makes one document of the events of the parser."""

    def __init__(self, events: Iterator[Event]) -> None:
        self.places: dict[str, Place] = {}
        self._events = events
        self._anchors: dict[str, tuple[Json, int]] = {}
        self._values = 0

    def document(self) -> Json:
        """Returns the only document."""
        next(self._events)  # of the stream
        begin = next(self._events)
        if not isinstance(begin, DocumentStartEvent):
            _refuse("is empty", begin)
        value = self._value(next(self._events), "", 0)
        end = next(self._events), next(self._events)
        if not isinstance(end[0], DocumentEndEvent) or not isinstance(end[1], StreamEndEvent):
            _refuse("holds more than one document", end[1])
        return value

    def _value(self, event: Event, path: str, depth: int) -> Json:
        self.places.setdefault(path, _place(event))
        if depth > MOST_DEPTH:
            _refuse(f"is nested deeper than {MOST_DEPTH} levels", event)
        if isinstance(event, AliasEvent):
            return self._repeated(event)
        before = self._values
        self._count(1, event)
        value = self._fresh(event, path, depth)
        if isinstance(event, NodeEvent) and event.anchor:
            self._anchors[event.anchor] = value, self._values - before
        return value

    def _fresh(self, event: Event, path: str, depth: int) -> Json:
        if isinstance(event, ScalarEvent):
            return _scalar(event)
        if isinstance(event, CollectionStartEvent) and event.tag not in (None, "!"):
            _refuse(f"has the tag {event.tag}: tags are not taken", event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path, depth)
        return self._sequence(path, depth)

    def _mapping(self, path: str, depth: int) -> Json:
        made, keys = dict[str, Json](), dict[str, Place]()
        while not isinstance(key := next(self._events), MappingEndEvent):
            if not isinstance(key, ScalarEvent):
                _refuse("has a key that is not a scalar", key)
            name = member(path, key.value)
            if key.value in keys:
                _refuse(f"has {name} twice: here and at {keys[key.value]}", key)
            keys[key.value] = self.places[name] = _place(key)
            made[key.value] = self._value(next(self._events), name, depth + 1)
        return made

    def _sequence(self, path: str, depth: int) -> Json:
        made: list[Json] = []
        while not isinstance(item := next(self._events), SequenceEndEvent):
            made.append(self._value(item, f"{path}[{len(made)}]", depth + 1))
        return made

    def _repeated(self, alias: AliasEvent) -> Json:
        if alias.anchor not in self._anchors:
            _refuse(f"has no anchor {alias.anchor} before this alias", alias)
        value, values = self._anchors[alias.anchor]
        self._count(values, alias)
        return value

    def _count(self, values: int, event: Event) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            _refuse(f"holds more than {MOST_VALUES:,} values, with what aliases repeat", event)


def _scalar(event: ScalarEvent) -> Json:
    if event.tag not in _STRING_TAGS:
        _refuse(f"has the tag {event.tag}: tags are not taken", event)
    text = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NO_NUMBER.fullmatch(text):
        _refuse(f"says {text}, which is not a JSON number", event)
    return text


def _place(event: Event) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _refuse(message: str, event: Event) -> NoReturn:
    raise NotReadableError(message, _place(event))
