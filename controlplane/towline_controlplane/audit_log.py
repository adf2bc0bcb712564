"""The audit log: events of calls, stored in batches before their calls are answered."""

import asyncio
from collections.abc import Sequence
from typing import Final

from towline_controlplane.group_commit import Backlog, commit_together
from towline_controlplane.identity import AuditEvent
from towline_controlplane.store import audit_events
from towline_controlplane.store.database import Database, Transaction

_AT_ONCE: Final = 500


class AuditLog:
    """Takes events from calls; `run` stores them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wake = asyncio.Event()
        self._backlog: Backlog[AuditEvent] = Backlog(self._wake)

    def note(self, event: AuditEvent) -> asyncio.Future[None]:
        """Returns what is done once the event is stored, or holds why it is not."""
        return self._backlog.add(event)

    async def run(self) -> None:
        """Stores what comes, until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while waiting := self._backlog.take(_AT_ONCE):
                await commit_together(self._database, waiting, _store)


def _store(tx: Transaction, events: Sequence[AuditEvent]) -> tuple[list[None], None]:
    audit_events.insert_many(tx, events)
    return [None] * len(events), None
