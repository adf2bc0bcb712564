"""The attempts in the agent's hands: one entry per lease, and which starts the control plane has not heard of yet.

Changed by the event loop only; `snapshot` may be called from any thread. Starts travel in the next Pull or Report; if
neither is sent soon, `unconfirmed` asks for a Sync, so that a short step costs no message of its own.
"""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import MappingProxyType

from towline.v1.agent_service_pb2 import HeldAttempt, Lease, Offer
from towline_agent.clock import Clock, Timer
from towline_agent.confirmations import Confirmations
from towline_agent.lifecycle import Action, Event, Phase, step

CONFIRM_SECONDS = 0.1
"""Starts that no other message has carried by then are confirmed by a Sync of their own."""

_WIRE_PHASES = MappingProxyType(
    {
        Phase.OFFERED: HeldAttempt.PREPARING,
        Phase.PREPARING: HeldAttempt.PREPARING,
        Phase.RUNNING: HeldAttempt.RUNNING,
        Phase.STOPPING: HeldAttempt.RUNNING,
        Phase.REPORTING: HeldAttempt.REPORTING,
    }
)


def lease_key(lease: Lease) -> str:
    """Names a hand-out: the same for every message about it, safe as a file name, and free of its token."""
    name = f"{lease.run_id}:{lease.node_id}:{lease.attempt}:{lease.epoch}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True, eq=False)
class Attempt:
    """One hand-out on this agent; `apply` is the only way its phase changes."""

    offer: Offer
    key: str
    phase: Phase = Phase.OFFERED
    stopped_by: Event | None = None
    stop_reason: str = ""
    thawed: asyncio.Event = field(default_factory=_set_event)
    """Clear while the control plane wants it to stand still."""

    @property
    def frozen(self) -> bool:
        """Whether it is to stand still."""
        return not self.thawed.is_set()

    def apply(self, event: Event) -> Action:
        """Moves on and says what has to be done."""
        self.phase, action = step(self.phase, event)
        if self.phase is Phase.STOPPING and self.stopped_by is None:
            self.stopped_by = event
        return action

    @property
    def names(self) -> dict[str, str | int]:
        """What log lines say about it."""
        lease = self.offer.lease
        return {"run": lease.run_id, "node": lease.node_id, "attempt": lease.attempt, "epoch": lease.epoch}


@dataclass(frozen=True, slots=True)
class _Start:
    lease: Lease
    since: float


class Holdings:
    """All attempts that are not DONE."""

    def __init__(self, clock: Clock, unconfirmed: Callable[[], None]) -> None:
        self._clock = clock
        self._unconfirmed = unconfirmed
        self._lock = threading.Lock()
        self._attempts: dict[str, Attempt] = {}
        self._left: dict[str, HeldAttempt] = {}
        """What an earlier process has left to be reported."""
        self._starts: dict[str, _Start] = {}
        self._timer: Timer | None = None
        self._confirmations = Confirmations(clock, unconfirmed, self._lapse)
        self.lapsed: Callable[[Attempt], object] = lambda attempt: None
        """Called with an attempt whose offer is about to go back for want of a confirmation."""

    def __iter__(self) -> Iterator[Attempt]:
        return iter(tuple(self._attempts.values()))

    def __len__(self) -> int:
        return len(self._attempts)

    def get(self, key: str) -> Attempt | None:
        """Returns the attempt of a key, or None if it is done or was never here."""
        return self._attempts.get(key)

    def add(self, offer: Offer, asked_at: float) -> Attempt | None:
        """Takes in an offer that a request of `asked_at` brought; None if it is here already, or has lapsed by now."""
        key = lease_key(offer.lease)
        if key in self._attempts:
            return None
        if not self._confirmations.expect(key, asked_at, offer.confirm_within.ToTimedelta().total_seconds()):
            return None
        attempt = Attempt(offer, key)
        with self._lock:
            self._attempts[key] = attempt
        self._starts[key] = _Start(offer.lease, self._clock.monotonic())
        self._expect_confirmation(CONFIRM_SECONDS)
        return attempt

    def take_over(self, leases: Iterable[Lease]) -> None:
        """Holds what an earlier process on this state folder has finished and could not report."""
        with self._lock:
            self._left |= {lease_key(lease): HeldAttempt(lease=lease, phase=HeldAttempt.REPORTING) for lease in leases}

    def remove(self, key: str) -> None:
        """Forgets an attempt that is done."""
        with self._lock:
            self._attempts.pop(key, None)
            self._left.pop(key, None)
        self._starts.pop(key, None)
        self._confirmations.acknowledge((key,))

    def take_starts(self) -> list[Lease]:
        """Returns the starts to send now; `put_back` those of a message that failed. Results confirm their own."""
        reporting = {key: start for key, start in self._starts.items() if self._is_reporting(key)}
        leases = [start.lease for key, start in self._starts.items() if key not in reporting]
        self._starts = reporting
        return leases

    def put_back(self, leases: Iterable[Lease]) -> None:
        """Makes starts due again if their attempts are still held."""
        now = self._clock.monotonic()
        self._starts |= {key: _Start(lease, now) for lease in leases if (key := lease_key(lease)) in self._attempts}
        self._expect_confirmation(CONFIRM_SECONDS)

    def confirmed(self, keys: Iterable[str]) -> None:
        """The control plane has acknowledged these attempts."""
        for key in keys:
            self._starts.pop(key, None)
            self._confirmations.acknowledge((key,))

    def snapshot(self) -> dict[str, HeldAttempt]:
        """What a Sync says is held, by key; for any thread."""
        with self._lock:
            attempts = [(attempt, attempt.phase) for attempt in self._attempts.values()]
            left = dict(self._left)
        return left | {
            attempt.key: HeldAttempt(lease=attempt.offer.lease, phase=_WIRE_PHASES[phase], frozen=attempt.frozen)
            for attempt, phase in attempts
            if phase in _WIRE_PHASES
        }

    def _lapse(self, key: str) -> None:
        attempt = self._attempts.get(key)
        if attempt is not None and not self._is_reporting(key):
            self.lapsed(attempt)

    def _is_reporting(self, key: str) -> bool:
        attempt = self._attempts.get(key)
        return attempt is not None and attempt.phase is Phase.REPORTING

    def _expect_confirmation(self, seconds: float) -> None:
        if self._starts and self._timer is None:
            self._timer = self._clock.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        oldest = next(iter(self._starts.values()), None)
        if oldest is None:
            return
        left = oldest.since + CONFIRM_SECONDS - self._clock.monotonic()
        if left > 0:
            self._expect_confirmation(left)
        else:
            self._unconfirmed()
