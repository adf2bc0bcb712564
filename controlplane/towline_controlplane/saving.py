"""Lets large steps have their turn: an agent that always has room for small ones never has room for a large one.

A step that heads its queue and was passed over for `patience_seconds`, for want of room, gets one agent that saves up
for it: that agent is given nothing else until it has the room, and then this step first. Others go on with what fits
them, and may take the step if they have the room earlier. So at most one agent stands partly idle for a queue, for at
most as long as what it runs. Which agent that is, all replicas read in the database, by whose clock the patience ends;
what others have written is looked at again now and then: to know of it late costs no more than the wait.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from towline_controlplane.rooms import Room
from towline_controlplane.store import savings
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.runs import StepKey
from towline_controlplane.store.savings import Passed

_ASKS_WITHIN_US = 60_000_000
"""An agent that does not ask for so long saves no more."""
_TOLD_EVERY_US = 5_000_000
"""That it asks is written down this often."""
_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class Saving:
    """By queue, the step that waits for room, and who saves up for it, as last seen."""

    patience_seconds: float = 10.0
    monotonic: Callable[[], float] = time.monotonic
    _passed: dict[str, Passed] = field(default_factory=dict[str, Passed])
    _looked_at: float | None = None

    def queues(self, tx: Transaction, room: Room, head_of: Callable[[str], StepKey | None]) -> frozenset[str]:
        """Returns the queues that a claim is served from: those that fit, unless its agent saves up for one."""
        sized = sorted(room.sized()) if room.holder.takes_steps else ()
        if sized:
            self._look(tx)
        for queue_id in sized:
            fits = room.fits_when_asked(queue_id)
            if fits and not self._saves(queue_id, room.claim.agent_id):
                continue
            passed = self._head(tx, queue_id, head_of(queue_id))
            if passed is not None and self._is_saver(tx, passed, room.claim.agent_id, fits=fits):
                return frozenset({queue_id} & room.queues())
        return room.queues()

    def _look(self, tx: Transaction) -> None:
        now = self.monotonic()
        if self._looked_at is None or now - self._looked_at >= _LOOK_SECONDS:
            self._passed, self._looked_at = savings.all_passed(tx), now

    def _saves(self, queue_id: str, agent_id: str) -> bool:
        passed = self._passed.get(queue_id)
        return passed is not None and passed.saver == agent_id

    def _head(self, tx: Transaction, queue_id: str, head: StepKey | None) -> Passed | None:
        passed = self._passed.get(queue_id)
        if head is None:
            if self._passed.pop(queue_id, None) is not None:
                savings.forget_passed(tx, queue_id)
            return None
        if passed is None or passed.head != head:
            passed = self._passed[queue_id] = savings.note_passed(tx, queue_id, head)
        return passed

    def _is_saver(self, tx: Transaction, passed: Passed, agent_id: str, *, fits: bool) -> bool:
        if passed.saver == agent_id and tx.now - passed.ask_time < _TOLD_EVERY_US:
            return True
        overdue = not fits and tx.now - passed.since >= int(self.patience_seconds * 1_000_000)
        is_free = passed.saver is None or passed.ask_time < tx.now - _ASKS_WITHIN_US
        if passed.saver != agent_id and not (overdue and is_free):
            return False
        if savings.ask_if_saver(tx, passed, agent_id, tx.now - _ASKS_WITHIN_US):
            self._passed[passed.queue_id] = replace(passed, saver=agent_id, ask_time=tx.now)
            return True
        self._looked_at = None  # somebody else was first: who, the next look tells
        return False
