"""The users that plugins of an agent that is root run as: each belongs to one attempt at a time."""

from collections import deque
from collections.abc import Iterable


class NoUserLeft(OSError):
    """All users are in use."""


class Users:
    """A pool; the one that has rested longest is given next. Without any, attempts run as the agent itself."""

    def __init__(self, uids: Iterable[int] = ()) -> None:
        self._free = deque(uids)
        self._own = not self._free

    def take(self) -> int | None:
        """Returns a user that nobody else has until it is given back; None: the agent's own."""
        if self._own:
            return None
        if not self._free:
            raise NoUserLeft("no user is left for another attempt: raise TOWLINE_AGENT_UIDS")
        return self._free.popleft()

    def give_back(self, uid: int | None) -> None:
        """Takes a user back whose processes and files are gone."""
        if uid is not None:
            self._free.append(uid)
