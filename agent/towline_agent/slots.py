"""Slots: how many attempts the agent may run, exactly, whatever is in flight.

A request for work reserves every slot it asks for until its answer is in; an attempt occupies one until its processes
are gone. The sum never exceeds the total, so that parallel requests cannot bring more work than there is room for.
"""

from collections.abc import Callable


class Slots:
    """Counts; `freed` is called whenever a slot becomes free."""

    def __init__(self, total: int, freed: Callable[[], None]) -> None:
        self.total = total
        self._freed = freed
        self._occupied = 0
        self._reserved = 0
        self._closed = False

    @property
    def occupied(self) -> int:
        """Attempts that have, or may have, processes."""
        return self._occupied

    @property
    def free(self) -> int:
        """Slots that nobody runs on and nobody has asked work for."""
        return 0 if self._closed else self.total - self._occupied - self._reserved

    def reserve(self) -> int:
        """Reserves all free slots and says how many; each call is paired with `settle`."""
        wanted = self.free
        self._reserved += wanted
        return wanted

    def settle(self, wanted: int, received: int) -> int:
        """Ends a reservation and occupies slots for what was received; returns how many fit."""
        self._reserved -= wanted
        accepted = min(received, wanted)
        self._occupied += accepted
        if accepted < wanted:
            self._freed()
        return accepted

    def release(self) -> None:
        """Frees the slot of an attempt whose processes are gone."""
        self._occupied -= 1
        self._freed()

    def close(self) -> None:
        """From now on no slot is free: no more work is asked for."""
        self._closed = True
