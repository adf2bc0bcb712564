"""Rings for steps whose time has come: a step that waits for its retry is READY all along, only not yet due."""

from collections import Counter
from dataclasses import dataclass, field

from towline_controlplane.bus import Doorbell, queue_topic
from towline_controlplane.loops.alarm import LONGEST_WAIT_SECONDS, Alarm
from towline_controlplane.store import leases
from towline_controlplane.store.database import Database

_BATCH = 256
_OVERLAP_US = 1_000_000
"""Looked at twice: a step may be committed a little after the moment it was decided for."""


@dataclass(slots=True)
class RetryTimer:
    """Waits for the next due step; its alarm is for when one was added that may come first."""

    database: Database
    doorbell: Doorbell
    alarm: Alarm = field(default_factory=Alarm)
    _rung_until: int = 0

    async def tick(self) -> float:
        """Rings the queues of the steps that have become due; returns the seconds until it should look again."""
        since = self._rung_until - _OVERLAP_US
        now, due = await self.database.read(lambda tx: (tx.now, leases.due_after(tx, since, _BATCH)))
        self.doorbell.ring_in_turn(Counter(queue_topic(queue_id) for not_before, queue_id in due if not_before <= now))
        if len(due) == _BATCH and due[-1][0] <= now:
            self._rung_until = due[-1][0] + _OVERLAP_US
            return 0.0
        self._rung_until = now
        later = [not_before for not_before, _ in due if not_before > now]
        return min([(later[0] - now) / 1_000_000, LONGEST_WAIT_SECONDS] if later else [LONGEST_WAIT_SECONDS])

    async def run(self) -> None:
        """Ticks when something is due, at the latest every second, until it is cancelled."""
        await self.alarm.run(self.tick)
