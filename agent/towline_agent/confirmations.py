"""Offers whose confirmation has not been acknowledged: the control plane may give such a step to another agent.

An attempt starts at once, without waiting for the acknowledgement. If none has come when the offer is about to lapse,
the attempt is given up before anybody else can hold it. Only a Sync acknowledges: it names what is no longer ours. The
time runs from the sending of the request that brought the offer, so that it never ends later here than there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from towline_agent.clock import Clock, Timer

ASK_SHARE = 1 / 2
"""Part of the time left after which a Sync is asked for, should none have come by itself."""
MARGIN_SHARE = 1 / 6
"""Part of the time left that is kept back for killing what runs."""


@dataclass(slots=True)
class _Awaited:
    ask_at: float
    lapse_at: float

    @property
    def due(self) -> float:
        return min(self.ask_at, self.lapse_at)


class Confirmations:
    """Keys that wait; `ask` is called when a Sync is wanted, `lapse` with each key that has waited too long."""

    def __init__(self, clock: Clock, ask: Callable[[], object], lapse: Callable[[str], object]) -> None:
        self._clock = clock
        self._ask = ask
        self._lapse = lapse
        self._awaited: dict[str, _Awaited] = {}
        self._timer: Timer | None = None
        self._timer_due = 0.0

    def expect(self, key: str, asked_at: float, within: float) -> bool:
        """Waits for a key; False if the offer is too old to be started."""
        now = self._clock.monotonic()
        left = asked_at + within - now
        if left <= 0:
            return False
        self._awaited[key] = awaited = _Awaited(now + left * ASK_SHARE, now + left * (1 - MARGIN_SHARE))
        self._look_at(awaited.due, now)
        return True

    def acknowledge(self, keys: Iterable[str]) -> None:
        """These are confirmed, or nothing can be lost any more."""
        for key in keys:
            self._awaited.pop(key, None)

    def _look_at(self, due: float, now: float) -> None:
        # One timer, set for the first of them: most are acknowledged, and cost no timer of their own.
        if self._timer is not None and self._timer_due > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer_due, self._timer = due, self._clock.call_later(due - now, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        lapsed = [key for key, awaited in self._awaited.items() if awaited.lapse_at <= now]
        self.acknowledge(lapsed)
        silent = [awaited for awaited in self._awaited.values() if awaited.ask_at <= now]
        for awaited in silent:
            awaited.ask_at = awaited.lapse_at
        if silent:
            self._ask()
        for key in lapsed:
            self._lapse(key)
        if self._awaited:
            self._look_at(min(awaited.due for awaited in self._awaited.values()), now)
