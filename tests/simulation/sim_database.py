"""A database on virtual time: a real SQLite file, whose every transaction runs in place between two drawn delays.

So a process can be killed before its transaction and after it but before the answer. All processes share the file; the
clock of the database is not theirs, and jumps.
"""

import asyncio
import contextlib
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sim_locks import Row, RowLocks, rows_locked
from sqlalchemy import Connection

from towline_controlplane.errors import Unavailable
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.sqlite import SqliteBackend
from towline_controlplane.store.statements import Statement
from towline_migrations import upgrade

T = TypeVar("T")

MICROSECONDS = 1_000_000
_BEGAN = 1_700_000_000 * MICROSECONDS


class DatabaseClock:
    """The clock of the database's host (µs): virtual time, and what it was set to."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.offset_seconds = 0.0

    def __call__(self) -> int:
        return _BEGAN + int((self._now() + self.offset_seconds) * MICROSECONDS)


class UnsyncedBackend(SqliteBackend):
    """SQLite without the wait for the disk: what dies here are processes, not machines. Notes what would be locked."""

    locked: list[Row] | None = None
    """The rows that the transaction under way would lock, if somebody wants to know."""

    def connect(self, *, writes: bool) -> Connection:
        """Returns a new connection."""
        connection = super().connect(writes=writes)
        connection.exec_driver_sql("PRAGMA synchronous = OFF")
        connection.rollback()
        return connection

    def fetch(self, driver: sqlite3.Connection, statement: Statement, parameters: Sequence[Any]) -> list[Any]:
        """Returns all rows of a hot query."""
        found = super().fetch(driver, statement, parameters)
        if self.locked is not None:
            self.locked += rows_locked(statement, found)
        return found


class _Rehearsed(Exception):
    """Ends a transaction that is to leave no trace."""


class SharedDatabase:
    """The one database of a simulation and, if several processes write to it, the locks between them."""

    def __init__(
        self, file: Path, clock: DatabaseClock, locks: RowLocks | None, between_locks: Callable[[], float]
    ) -> None:
        self.backend = UnsyncedBackend(file, clock)
        self.database = Database(self.backend)
        self.locks = locks
        self._between_locks = between_locks

    async def write(self, holder: object, work: Callable[[Transaction], T]) -> T:
        """Runs a transaction of `holder` once it has its locks."""
        if self.locks is None:
            return await self.database.write(work)
        try:
            for row in await self._rehearse(work):
                await self.locks.take(holder, row)
                await asyncio.sleep(self._between_locks())
            return await self.database.write(work)
        finally:
            self.locks.release(holder)

    async def _rehearse(self, work: Callable[[Transaction], object]) -> list[Row]:
        rows: list[Row] = []

        def rehearse(tx: Transaction) -> None:
            self.backend.locked = rows
            try:
                work(tx)
            finally:
                self.backend.locked = None
            raise _Rehearsed

        with contextlib.suppress(_Rehearsed):
            await self.database.write(rehearse)
        return rows


class ProcessDatabase(Database):
    """The database as one process reaches it: one writer, readers beside it, and errors by chance."""

    def __init__(self, shared: SharedDatabase, fails: Callable[[], bool], chance: random.Random) -> None:
        # No connections of its own: a transaction is never open while another one begins.
        self._shared = shared
        self._fails = fails
        self._chance = chance
        self._writing = asyncio.Lock()

    def died(self) -> None:
        """Gives back what the process held."""
        if self._shared.locks is not None:
            self._shared.locks.release(self)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Returns what `work` returns once it is committed; an error may hide whether it was."""
        fails = self._fails()
        if fails and self._chance.random() < 0.5:
            raise Unavailable("the database is away")
        async with self._writing:
            result = await self._shared.write(self, work)
        if fails:
            raise Unavailable("the connection to the database was lost while it committed")
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Returns what `work` returns."""
        if self._fails():
            raise Unavailable("the database is away")
        return await self._shared.database.read(work)


def fresh_database(folder: Path) -> Path:
    """Returns the file of an empty, migrated database in `folder`."""
    return Path(shutil.copy(_template(), folder / "towline.db"))


@cache
def _template() -> Path:
    file = Path(tempfile.mkdtemp(prefix="towline-simulation-")) / "template.db"
    upgrade(f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return file
