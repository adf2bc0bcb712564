"""Rings for steps whose time has come: a step that waits for its retry is READY all along, only not yet due."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import structlog

from towline_controlplane.bus import Doorbell, queue_topic
from towline_controlplane.store import leases
from towline_controlplane.store.database import Database

_BATCH = 256
_LONGEST_WAIT_SECONDS = 1.0
_OVERLAP_US = 1_000_000
"""Looked at twice: a step may be committed a little after the moment it was decided for."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RetryTimer:
    """Waits for the next due step; `wake` when one was added that may come first."""

    database: Database
    doorbell: Doorbell
    _rung_until: int = 0
    _added: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Makes the timer look again at once."""
        self._added.set()

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
        return min([(later[0] - now) / 1_000_000, _LONGEST_WAIT_SECONDS] if later else [_LONGEST_WAIT_SECONDS])

    async def run(self) -> None:
        """Ticks when something is due, at the latest every second, until it is cancelled."""
        while True:
            self._added.clear()
            try:
                wait = await self.tick()
            except Exception:
                log.exception("tick failed", duty="RetryTimer")
                wait = _LONGEST_WAIT_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._added.wait()
            except TimeoutError:
                continue
