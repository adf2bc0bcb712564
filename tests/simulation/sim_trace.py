"""What happened, line by line: two simulations of one seed have the same digest or chance crept in from outside."""

import hashlib
from collections.abc import Callable


class Trace:
    """Lines with their time; kept only if somebody wants to read them."""

    def __init__(self, now: Callable[[], float], *, keep: bool) -> None:
        self.lines: list[str] = []
        self._now = now
        self._keep = keep
        self._hash = hashlib.sha256()
        self._closed = False

    def note(self, who: str, what: str) -> None:
        """Adds a line."""
        if self._closed:
            return
        line = f"{self._now():10.4f}  {who:<12} {what}"
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)

    def close(self) -> None:
        """Takes no more lines."""
        self._closed = True

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._hash.hexdigest()
