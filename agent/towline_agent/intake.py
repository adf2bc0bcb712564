"""How work comes in, the same for a Pull and for the answer of a Report: slots are reserved, asked for, and filled.

Never takes more offers than it asked for. What a lost answer offered is not waited for: it goes back by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from towline.v1.agent_service_pb2 import Lease, Offer
from towline_agent.clock import Clock, Signal
from towline_agent.holdings import Holdings
from towline_agent.slots import Slots

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


MEMORY_SECONDS = 1.0
"""How old a measurement of the free memory may be: it costs as much as a small message."""


_NOT_UNKNOWN = 1


def weight_of(offer: Offer) -> int:
    """Returns how many slots an offer takes; a control plane from before weights names none."""
    return max(offer.weight, 1)


@dataclass(frozen=True, slots=True)
class Request:
    """What a message asks for and confirms; ended by `take` or `give_up`."""

    want: int
    free_memory_bytes: int
    started: list[Lease]
    asked_at: float


class Intake:
    """The way from free slots to started attempts; `changed` is set when there may be something to ask for."""

    def __init__(self, slots: int, holdings: Holdings, free_memory: Callable[[], int], clock: Clock) -> None:
        self._clock = clock
        self._measured_at = -MEMORY_SECONDS
        self._free_bytes = 0
        self._promised_bytes = 0
        self.changed = Signal(clock)
        self.slots = Slots(slots, self.changed.set)
        self._holdings = holdings
        self._free_memory = free_memory

    def ask(self) -> Request:
        """Reserves all free slots and gathers what the message has to say."""
        return Request(self.slots.reserve(), self._measure(), self._holdings.take_starts(), self._clock.monotonic())

    def take(self, request: Request, offers: Sequence[Offer], start: Callable[[Offer, float], None]) -> None:
        """Starts what was offered, saying when it was asked for."""
        accepted = self.slots.settle(request.want, [weight_of(offer) for offer in offers])
        if accepted < len(offers):
            log.error("offers_ignored", wanted=request.want, offered=len(offers))
        for offer in offers[:accepted]:
            self._promised_bytes += offer.limits.memory_bytes
            start(offer, request.asked_at)

    def give_up(self, request: Request) -> None:
        """Ends a request without an answer."""
        self.slots.settle(request.want, ())
        self._holdings.put_back(request.started)

    def _measure(self) -> int:
        now = self._clock.monotonic()
        if now - self._measured_at >= MEMORY_SECONDS:
            self._measured_at, self._free_bytes, self._promised_bytes = now, self._free_memory(), 0
        return max(self._free_bytes - self._promised_bytes, _NOT_UNKNOWN)
