"""The `Range` header: one range of bytes, or none. What is no single, well-formed range asks for the whole."""

import re
from dataclasses import dataclass
from typing import Final

_ONE: Final = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """From `first` to `last`, both counted from 0; without `first` the `last` bytes, without `last` all the rest."""

    first: int | None
    last: int | None

    @property
    def offset(self) -> int:
        """Where to begin; below 0 it counts from the end."""
        return self.first if self.first is not None else -(self.last or 0)

    @property
    def limit(self) -> int:
        """How many bytes at most; 0 means all."""
        return 0 if self.first is None or self.last is None else self.last - self.first + 1

    def within(self, size: int) -> tuple[int, int] | None:
        """Returns the first byte of a file and the one behind the last; None if there is none of them."""
        begin = max(size + self.offset, 0) if self.first is None else self.first
        end = min(begin + self.limit, size) if self.limit else size
        return (begin, end) if begin < end else None


def parse_range(header: str | None) -> ByteRange | None:
    """Returns the range that is asked for; None for the whole."""
    found = _ONE.fullmatch(header or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = (int(text) if text else None for text in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return ByteRange(first, last)
