"""Fair keys: the order in which owners share a queue, fixed when a step is enqueued (I32).

Start-time fair queueing: the next key of an owner follows its own last one, but never lies before the step that is to
go next. So whoever enqueues ten thousand steps spreads them over ten thousand rounds, and another's single step joins
the current one. Keys start from the database's clock, which outruns any rate of steps: an empty lane needs no memory.

Kept in the memory of a replica, because it is a matter of order only: with several replicas, or after a restart, an
owner has at most one such sequence per replica.
"""

from collections import OrderedDict
from collections.abc import Mapping

Lane = tuple[str, int]
"""Queue id and priority: only steps of one lane compare their fair keys."""


class FairShares:
    """The last key of each owner in each lane, for those that enqueued most recently."""

    def __init__(self, max_owners: int = 100_000) -> None:
        self._max_owners = max_owners
        self._last: OrderedDict[tuple[Lane, str], int] = OrderedDict()

    def next_key(self, lane: Lane, owner_id: str, heads: Mapping[Lane, int], now: int) -> int:
        """Returns the key of the owner's next step in a lane; `heads` are the keys of the steps that are next to go."""
        key = max(self._last.get((lane, owner_id), 0) + 1, heads.get(lane, now))
        self._last[lane, owner_id] = key
        self._last.move_to_end((lane, owner_id))
        if len(self._last) > self._max_owners:
            self._last.popitem(last=False)
        return key
