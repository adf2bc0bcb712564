"""Row locks between replicas, as a database has them that lets their transactions run side by side.

SQLite runs one transaction at a time. Before each one a rehearsal, which is rolled back, tells the rows that it would
lock in PostgreSQL, in their order; these are taken one by one, with time in between, and are let go at its end. A
transaction that waits, in a circle, for itself is a defect: every lock is to be taken in the order of the keys.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from towline_controlplane.store.statements import Statement

Row = tuple[str, str]
"""Table and key."""

_LOCKING = "FOR NO KEY UPDATE"
_PASSES_OVER = "SKIP LOCKED"
_LOCKED_TABLE = re.compile(r"(?:FROM|JOIN) (\w+) r\b")


def rows_locked(statement: Statement, found: Sequence[tuple[Any, ...]]) -> list[Row]:
    """Returns the rows that a query locks where it finds these; whoever passes over locked rows waits for none."""
    text = statement.text["postgresql"]
    table = _LOCKED_TABLE.search(text)
    if _LOCKING not in text or _PASSES_OVER in text or table is None:
        return []
    return [(table.group(1), str(row[0])) for row in found]


class RowLocks:
    """Who holds what; a holder is a transaction under way."""

    def __init__(self, defects: list[str]) -> None:
        self._defects = defects
        self._holders: dict[Row, object] = {}
        self._waiting: dict[object, Row] = {}
        self._waking: list[asyncio.Future[None]] = []

    async def take(self, holder: object, row: Row) -> None:
        """Returns once `holder` has the lock of the row."""
        while self._holders.setdefault(row, holder) is not holder:
            self._waiting[holder] = row
            if self._waits_for_itself(holder):
                self._defects.append(f"deadlock: transactions wait for each other over {row}")
            released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waking.append(released)
            await released
            del self._waiting[holder]

    def release(self, holder: object) -> None:
        """Lets go of all that `holder` has, or had when it was killed."""
        self._holders = {row: other for row, other in self._holders.items() if other is not holder}
        self._waiting.pop(holder, None)
        waking, self._waking = self._waking, []
        for each in waking:
            if not each.done():
                each.set_result(None)

    def _waits_for_itself(self, holder: object) -> bool:
        seen: object = holder
        for _ in range(len(self._waiting)):
            row = self._waiting.get(seen)
            if row is None:
                return False
            seen = self._holders.get(row)
            if seen is holder:
                return True
        return False
