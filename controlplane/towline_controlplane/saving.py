"""Lets large steps have their turn: an agent that always has room for small ones never has room for a large one.

A step that heads its queue and was passed over for `patience_seconds`, for want of room, gets one agent that saves up
for it: that agent is given nothing else until it has the room, and then this step first. Others go on with what fits
them, and may take the step if they have the room earlier. So at most one agent, of each control plane, stands partly
idle for a queue, for at most as long as what it runs; kept in memory, because losing it costs only the wait.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from towline_controlplane.rooms import Room
from towline_controlplane.store.runs import StepKey

_ASKS_WITHIN_SECONDS = 60.0
"""An agent that does not ask for so long saves no more."""


@dataclass(slots=True)
class _Passed:
    head: StepKey
    since: float
    saver: str | None = None
    asked_at: float = 0.0


@dataclass(slots=True)
class Saving:
    """By queue, the step that waits for room, and who saves up for it."""

    patience_seconds: float = 10.0
    monotonic: Callable[[], float] = time.monotonic
    _passed: dict[str, _Passed] = field(default_factory=dict[str, _Passed])

    def queues(self, room: Room, head_of: Callable[[str], StepKey | None]) -> frozenset[str]:
        """Returns the queues that a claim is served from: those that fit, unless its agent saves up for one."""
        for queue_id in sorted(room.sized()) if room.holder.takes_steps else ():
            fits = room.fits_when_asked(queue_id)
            if fits and not self._saves(queue_id, room.claim.agent_id):
                continue
            passed = self._head(queue_id, head_of(queue_id))
            if passed is not None and self._is_saver(passed, room.claim.agent_id, fits=fits):
                return frozenset({queue_id} & room.queues())
        return room.queues()

    def _saves(self, queue_id: str, agent_id: str) -> bool:
        passed = self._passed.get(queue_id)
        return passed is not None and passed.saver == agent_id

    def _head(self, queue_id: str, head: StepKey | None) -> _Passed | None:
        passed = self._passed.get(queue_id)
        if head is None:
            self._passed.pop(queue_id, None)
            return None
        if passed is None or passed.head != head:
            passed = self._passed[queue_id] = _Passed(head, self.monotonic())
        return passed

    def _is_saver(self, passed: _Passed, agent_id: str, *, fits: bool) -> bool:
        now = self.monotonic()
        overdue = not fits and now - passed.since >= self.patience_seconds
        if overdue and (passed.saver is None or now - passed.asked_at > _ASKS_WITHIN_SECONDS):
            passed.saver = agent_id
        if passed.saver != agent_id:
            return False
        passed.asked_at = now
        return True
