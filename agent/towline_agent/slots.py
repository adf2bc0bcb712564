"""Slots: how much the agent may run, exactly, whatever is in flight.

A request for work reserves every slot it asks for until its answer is in; an attempt occupies as many as it weighs
until its processes are gone. The sum never exceeds the total, so that parallel requests cannot bring more work than
there is room for.
"""

from collections.abc import Callable, Sequence


class Slots:
    """Counts; `freed` is called whenever a slot becomes free."""

    def __init__(self, total: int, freed: Callable[[], None]) -> None:
        self.total = total
        self._freed = freed
        self._occupied = 0
        self._reserved = 0
        self._closed = False
        self._paused: set[str] = set()

    @property
    def occupied(self) -> int:
        """Slots of attempts that have, or may have, processes."""
        return self._occupied

    @property
    def free(self) -> int:
        """Slots that nobody runs on and nobody has asked work for."""
        return 0 if self._closed or self._paused else self.total - self._occupied - self._reserved

    def reserve(self) -> int:
        """Reserves all free slots and says how many; each call is paired with `settle`."""
        wanted = self.free
        self._reserved += wanted
        return wanted

    def settle(self, wanted: int, weights: Sequence[int]) -> int:
        """Ends a reservation and occupies slots for what was received; returns how many of that fit."""
        self._reserved -= wanted
        left, accepted = wanted, 0
        for weight in weights:
            if weight > left:
                break
            left -= weight
            accepted += 1
        self._occupied += wanted - left
        if left:
            self._freed()
        return accepted

    def release(self, weight: int) -> None:
        """Frees the slots of an attempt whose processes are gone."""
        self._occupied -= weight
        self._freed()

    def pause(self, why: str, *, paused: bool) -> None:
        """No slot is free as long as anything pauses them: no more work is asked for meanwhile."""
        if paused:
            self._paused.add(why)
        elif why in self._paused:
            self._paused.discard(why)
            self._freed()

    def close(self) -> None:
        """From now on no slot is free: no more work is asked for."""
        self._closed = True
