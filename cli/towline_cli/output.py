"""Prints resources: as tables for people, as REST has them, in JSON or YAML, for programs. Knows no single kind."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from towline_cli.options import OutputFormat
from towline_sdk.documents import Json, to_json

ItemT = TypeVar("ItemT", bound=Message)

STATE_STYLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SUCCEEDED": "green",
        "ONLINE": "green",
        "RUNNING": "cyan",
        "LEASED": "cyan",
        "READY": "yellow",
        "PAUSED": "yellow",
        "PARKED": "yellow",
        "FAILED": "red",
        "TIMED_OUT": "red",
        "OFFLINE": "red",
        "CANCELLED": "magenta",
        "SKIPPED": "dim",
        "WAITING": "dim",
        "PENDING": "dim",
    }
)
ID_FIELDS: Final = ("id", "token", "key", "nodeId", "name", "version", "email")
"""What names a resource: the first of these that it has."""
UNBROKEN_WIDTH: Final = 10_000
CONTROL_PICTURES: Final = (
    {code: 0x2400 + code for code in range(0x20) if code != ord("\t")}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)
COLOUR: Final = re.compile(r"(\x1b\[[0-9;:]{0,40}m)")


@dataclass(frozen=True)  # without slots, with which Python 3.11 cannot make a Column[Run]
class Column(Generic[ItemT]):
    """A column of a table: its title and what stands in it."""

    title: str
    cell: Callable[[ItemT], str]


def show(resource: Message, output: OutputFormat, told_apart: str = "") -> None:
    """Prints one resource; for people without the field that is told apart."""
    document = to_json(resource)
    if output is not OutputFormat.TABLE:
        print_document(document, output)
        return
    document.pop(told_apart, None)
    console, width = stdout_console(), max(map(len, document), default=0) + 2
    for name, value in document.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        console.print(Text(name.ljust(width), style="bold").append_text(styled(text)), soft_wrap=True)


def show_list(answer: Message, items: Iterable[ItemT], columns: Sequence[Column[ItemT]], output: OutputFormat) -> None:
    """Prints the answer of a list call: as table its items, as JSON the whole answer with `nextPageToken`."""
    if output is OutputFormat.ID:
        for item in items:
            print_document(to_json(item), output)
    elif output is not OutputFormat.TABLE:
        print_document(to_json(answer), output)
    else:
        titles = [column.title for column in columns]
        _print_table(titles, ([column.cell(item) for column in columns] for item in items))
    if token := getattr(answer, "next_page_token", ""):
        print(f"more with --page-token {token}", file=sys.stderr)


def show_rows(name: str, rows: Sequence[Mapping[str, Json]], output: OutputFormat) -> None:
    """Prints a list that comes from no server: as table its rows, as JSON an object that holds it under its name."""
    if output is OutputFormat.ID:
        for row in rows:
            print_document(dict(row), output)
    elif output is not OutputFormat.TABLE:
        print_document({name: [dict(row) for row in rows]}, output)
    elif rows:
        _print_table([*rows[0]], ([_words(value) for value in row.values()] for row in rows))


def print_document(document: Json, output: OutputFormat) -> None:
    """Prints a document for programs."""
    if output is OutputFormat.ID:
        if name := _id(document):
            print(printable(name))
    elif output is OutputFormat.YAML:
        print(_yaml(document), end="")
    else:
        print(json.dumps(document, indent=2, ensure_ascii=False))


def print_item(document: Json, output: OutputFormat) -> None:
    """Prints one document of a stream, at once: a line of JSON, or a YAML document of its own."""
    if output is OutputFormat.YAML:
        print(f"---\n{_yaml(document)}", end="", flush=True)
    else:
        print(json.dumps(document, ensure_ascii=False), flush=True)


def _id(document: Json) -> str:
    if not isinstance(document, dict):
        return ""
    return next((str(document[name]) for name in ID_FIELDS if document.get(name)), "")


def _yaml(document: Json) -> str:
    # Only who asks for YAML pays for it.
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _words(value: Json) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _print_table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(styled, row))
    stdout_console().print(table)


def stdout_console() -> Console:
    """Returns a console for people; without a terminal it has no colours and breaks no line."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else UNBROKEN_WIDTH)


def styled(text: str) -> Text:
    """Returns text without the power to move the cursor; names of states are coloured."""
    return Text(printable(text), style=STATE_STYLES.get(text, ""))


def printable(text: str) -> str:
    """Returns text in which control characters are pictures: what a plugin wrote never drives the terminal."""
    return text.translate(CONTROL_PICTURES)


def coloured(text: str) -> str:
    """Returns text in which only sequences that change colours keep their power, and these up to its end."""
    pieces = COLOUR.split(text)
    if len(pieces) == 1:
        return printable(text)
    return "".join(each if number % 2 else printable(each) for number, each in enumerate(pieces)) + "\x1b[0m"


def shows_colours() -> bool:
    """Tells whether standard output is a terminal whose user has not asked for no colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def time_text(time: Timestamp) -> str:
    """Returns a time in local form, or nothing for one that is not set."""
    if not time.seconds:
        return ""
    return time.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration_text(start: Timestamp, end: Timestamp) -> str:
    """Returns the time between two moments, or nothing while one is open."""
    if not start.seconds or not end.seconds:
        return ""
    return seconds_text((end.ToNanoseconds() - start.ToNanoseconds()) / 1e9)


def seconds_text(seconds: float) -> str:
    """Returns `1.25 s` or `2:05 min`."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
