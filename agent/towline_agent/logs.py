"""From the raw output of processes to log records: `<time in µs> <O|E|S><-|+> <text>` and a line feed each.

However the bytes are cut into pieces, the records are the same but for their times. Text is UTF-8 with invalid bytes
replaced, never holds a line feed, and is at most 64 KiB long: `+` marks a line that goes on in the next record.
"""

import codecs
from collections.abc import Callable, Iterator

from towline_agent.execution import OutputStream

MAX_TEXT = 64 * 1024


def record(micros: int, stream: OutputStream, text: bytes, *, partial: bool = False) -> bytes:
    """Returns one record; `text` has no line feed."""
    return b"%d %s%s %s\n" % (micros, stream.value.encode(), b"+" if partial else b"-", text)


class LineSplitter:
    """Makes records of one stream; keeps at most one unfinished line."""

    def __init__(self, stream: OutputStream, micros: Callable[[], int]) -> None:
        self._stream = stream
        self._micros = micros
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Returns the records that `data` completes."""
        return self._split(self._decoder.decode(data))

    def finish(self) -> bytes:
        """Returns the records of what is left: a last line without its line feed."""
        records = self._split(self._decoder.decode(b"", final=True))
        last, self._rest = self._rest, b""
        return records + record(self._micros(), self._stream, last.removesuffix(b"\r")) if last else records

    def _split(self, text: str) -> bytes:
        if not text:
            return b""
        *lines, self._rest = (self._rest + text.encode()).split(b"\n")
        micros = self._micros()
        records: list[bytes] = []
        for line in lines:
            *heads, tail = _pieces(line)
            records += [record(micros, self._stream, head, partial=True) for head in heads]
            records.append(record(micros, self._stream, tail.removesuffix(b"\r")))
        *heads, self._rest = _pieces(self._rest)
        records += [record(micros, self._stream, head, partial=True) for head in heads]
        return b"".join(records)


def _pieces(line: bytes) -> Iterator[bytes]:
    """Cuts a line so that no piece is too long, none is cut within a character, and only the last may be empty."""
    start = 0
    while len(line) - start > MAX_TEXT:
        end = start + MAX_TEXT
        while line[end] & 0xC0 == 0x80:
            end -= 1
        yield line[start:end]
        start = end
    yield line[start:]
