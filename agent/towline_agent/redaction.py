"""Keeps secrets out of bytes: each value, and the forms that programs commonly write it in, becomes `***`.

However a stream is cut into pieces, what comes out is the same. Held back is only an end that may be the beginning of
a secret. A long value is looked for in pieces, so that what is held back, and the work per byte, are bounded. Pure.
"""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from math import ceil
from types import MappingProxyType
from urllib.parse import quote, quote_plus

MASK = b"***"
SHORTEST = 8
"""Bytes of a value; shorter ones would blot out ordinary text, and the control plane takes none."""

_PIECE = 1024
_MOST_LINES = 256
_MAYBE_CUT = 4000
"""Characters from which on a text may have been cut off, perhaps within a secret."""
_PERCENT = re.compile(rb"%[0-9A-F]{2}")


class End(Enum):
    """What becomes of a beginning of a secret at the end of the data."""

    HOLD = auto()
    MASK = auto()
    KEEP = auto()


class Redactor:
    """Knows what to look for; shared by all streams of an attempt."""

    def __init__(self, values: Iterable[str]) -> None:
        patterns = {
            piece for value in values for form in _forms(value) if len(form) >= SHORTEST for piece in _pieces(form)
        }
        by_head: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for pattern in sorted(patterns, key=len, reverse=True):
            by_head[pattern[:SHORTEST]].append(pattern)
        self._by_head = MappingProxyType({head: tuple(found) for head, found in by_head.items()})
        self._beginnings = frozenset(head[:length] for head in by_head for length in range(1, SHORTEST))
        self._heads = re.compile(_alternatives(by_head) if by_head else b"(?!)", re.DOTALL)

    def stream(self) -> "RedactedStream":
        """Returns a new stream to pass data through."""
        return RedactedStream(self)

    def text(self, text: str) -> str:
        """Returns a text without secrets, also if it may have been cut off within one."""
        data = text.encode(errors="surrogatepass")
        if not self._heads.search(data):
            return text
        end = End.MASK if len(text) >= _MAYBE_CUT else End.KEEP
        clean, _ = self.scan(data, end)
        # A piece of a long value may begin within a character.
        return b"".join(_collapsed(clean)).decode(errors="replace")

    def scan(self, data: bytes, end: End) -> tuple[list[bytes], int]:
        """Returns what to write, MASK where a secret was, and where the data begins that is held back."""
        clean: list[bytes] = []
        done = looked = 0
        while found := self._heads.search(data, looked):
            start = found.start()
            length = self._length_at(data, start, found[0], end)
            if length is None:
                return [*clean, data[done:start]], start
            if length:
                clean += (data[done:start], MASK)
                done = looked = start + length
            else:
                looked = start + 1
        held = self._beginning(data, looked) if end is End.HOLD else 0
        return [*clean, data[done : len(data) - held]], len(data) - held

    def _length_at(self, data: bytes, start: int, head: bytes, end: End) -> int | None:
        """Returns the length of what is to be masked at `start`; None if only what comes next can tell."""
        left = len(data) - start
        for pattern in self._by_head[head]:
            if data.startswith(pattern, start):
                return len(pattern)
            if end is not End.KEEP and left < len(pattern) and pattern.startswith(data[start:]):
                return None if end is End.HOLD else left
        return 0

    def _beginning(self, data: bytes, looked: int) -> int:
        """Returns the length of the longest end of the data, shorter than a head, that some head begins with."""
        longest = min(SHORTEST - 1, len(data) - looked)
        return next((size for size in range(longest, 0, -1) if data[-size:] in self._beginnings), 0)


class RedactedStream:
    """One stream of bytes on its way; keeps at most the beginning of one secret."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        self._masked = False

    def feed(self, data: bytes) -> bytes:
        """Returns what can be written now."""
        data = self._held + data if self._held else data
        clean, held_from = self._redactor.scan(data, End.HOLD)
        self._held = data[held_from:]
        return self._joined(clean)

    def finish(self) -> bytes:
        """Returns the rest; a secret that was broken off is masked as far as it came."""
        data, self._held = self._held, b""
        return self._joined(self._redactor.scan(data, End.MASK)[0])

    def _joined(self, clean: list[bytes]) -> bytes:
        if len(clean) == 1:
            self._masked = self._masked and not clean[0]
            return clean[0]
        written = list(_collapsed(clean, after_mask=self._masked))
        self._masked = next((piece is MASK for piece in reversed(clean) if piece), self._masked)
        return b"".join(written)


def _collapsed(pieces: Iterable[bytes], *, after_mask: bool = False) -> Iterator[bytes]:
    """Yields the pieces, of masks that follow one another the first: the pieces of a long value are one secret."""
    for piece in pieces:
        if piece is MASK and after_mask:
            continue
        if piece:
            after_mask = piece is MASK
            yield piece


def _forms(value: str) -> Iterator[bytes]:
    """Yields a value as programs write it: as it is, escaped as JSON, in a URL, within base64, line by line."""
    text = value.strip()
    data = text.encode()
    yield data
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
    for escaped in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield escaped.encode()
        yield _PERCENT.sub(lambda code: code[0].lower(), escaped.encode())
    for whole in {data, value.encode()}:
        for offset in range(3):
            yield from _base64_forms(whole, offset)
    lines = [line.strip() for line in data.splitlines()]
    if 1 < len(lines) <= _MOST_LINES:
        yield from lines


def _base64_forms(data: bytes, offset: int) -> Iterator[bytes]:
    """Yields the characters of base64 that the data alone decides, if so many bytes of other data are before it."""
    encoded = base64.b64encode(bytes(offset) + data)
    own = encoded[ceil(offset * 8 / 6) : (offset + len(data)) * 8 // 6]
    yield own
    yield own.translate(bytes.maketrans(b"+/", b"-_"))


def _pieces(form: bytes) -> Iterator[bytes]:
    """Cuts a form into pieces of nearly the same length, so that none is too short to be found."""
    size = ceil(len(form) / ceil(len(form) / _PIECE))
    for start in range(0, len(form), size):
        yield form[start : start + size]


def _alternatives(words: Iterable[bytes]) -> bytes:
    """Returns the expression for one of the words, all of the same length, in which no beginning is tried twice."""
    rests: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for word in words:
        rests[word[:1]].append(word[1:])
    branches = [re.escape(first) + _alternatives(filter(None, rest)) for first, rest in sorted(rests.items())]
    return branches[0] if len(branches) == 1 else b"(?:" + b"|".join(branches) + b")" if branches else b""
