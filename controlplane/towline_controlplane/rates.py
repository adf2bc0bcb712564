"""Rates: how often something may happen, kept in this process.

A rate is a bucket that holds `burst` and fills evenly (GCRA: one time per key says it all). Charges that belong
together are taken all or not at all, so that who is refused loses nothing.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from towline_controlplane.errors import RateLimited

MAX_KEYS: Final = 100_000
"""Remembered at most; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many per minute in the long run, and `burst` at once."""

    per_minute: float
    burst: int

    @property
    def interval_seconds(self) -> float:
        """How long it takes until there is one more."""
        return 60 / self.per_minute


@dataclass(frozen=True, slots=True)
class Charge:
    """One more of what `key` names."""

    key: str
    rate: Rate


class Meter(Protocol):
    """Counts what happens against rates."""

    async def take(self, charges: Sequence[Charge]) -> float:
        """Takes all charges and returns 0, or takes none and returns in how many seconds there is room for all."""
        ...

    async def reset(self, keys: Iterable[str]) -> None:
        """Forgets what was charged to keys."""
        ...

    async def run(self) -> None:
        """Keeps what the meter needs until it is cancelled."""
        ...


class LocalMeter:
    """Counts in this process; `monotonic` tells seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, most_keys: int = MAX_KEYS) -> None:
        self._monotonic = monotonic
        self._most_keys = most_keys
        self._full_at: dict[str, float] = {}
        """When the bucket of a key is full again; one that is full is not there, or forgotten soon."""

    async def take(self, charges: Sequence[Charge]) -> float:
        """Takes all charges and returns 0, or takes none and returns in how many seconds there is room for all."""
        now = self._monotonic()
        wanted = [(each, max(self._full_at.get(each.key, now), now) + each.rate.interval_seconds) for each in charges]
        waits = [full_at - each.rate.burst * each.rate.interval_seconds - now for each, full_at in wanted]
        if (wait := max(waits, default=0.0)) > 0:
            return wait
        for each, full_at in wanted:
            self._full_at.pop(each.key, None)  # so that the order is that of the last use
            self._full_at[each.key] = full_at
        if len(self._full_at) > self._most_keys:
            self._forget(now)
        return 0.0

    async def reset(self, keys: Iterable[str]) -> None:
        """Forgets what was charged to keys."""
        for key in keys:
            self._full_at.pop(key, None)

    async def run(self) -> None:
        """Needs nothing."""
        await asyncio.Event().wait()

    def _forget(self, now: float) -> None:
        kept = [(key, full_at) for key, full_at in self._full_at.items() if full_at > now]
        self._full_at = dict(kept[-self._most_keys // 2 :])


async def charge(meter: Meter, charges: Sequence[Charge]) -> None:
    """Takes charges; raises RateLimited if there is no room."""
    if charges and (wait := await meter.take(charges)) > 0:
        raise RateLimited(wait)
