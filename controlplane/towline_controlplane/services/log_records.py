"""Records of an attempt's log: `<time in µs> <O|E|S><-|+> <text>` and a line feed each.

Whatever an agent stored is readable: a record of another form becomes a SYSTEM line with its text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_RECORD: Final = re.compile(rb"(\d{1,16}) ([OES])([-+]) (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line. `end` counts the bytes from the start of the data up to behind the record."""

    time: int
    """Microseconds since the epoch; 0 if the record has none."""
    stream: str
    """O stdout, E stderr, S system."""
    partial: bool
    text: str
    end: int


def records(data: bytes) -> Iterator[LogRecord]:
    """Yields the records of log data in order, whatever the data is."""
    start = 0
    while start < len(data):
        line_feed = data.find(b"\n", start)
        stop = len(data) if line_feed < 0 else line_feed
        end = len(data) if line_feed < 0 else line_feed + 1
        yield _record(data[start:stop], end)
        start = end


def _record(line: bytes, end: int) -> LogRecord:
    form = _RECORD.fullmatch(line)
    if form is None:
        return LogRecord(0, "S", partial=False, text=line.decode(errors="replace"), end=end)
    time, stream, mark, text = form.groups()
    return LogRecord(int(time), stream.decode(), partial=mark == b"+", text=text.decode(errors="replace"), end=end)
