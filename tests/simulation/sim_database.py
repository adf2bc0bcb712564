"""A database on virtual time: a real SQLite file, whose every transaction runs in place between two drawn delays.

So a process can be killed before its transaction and after it but before the answer. All processes share the file; the
clock of the database is not theirs, and jumps.
"""

import asyncio
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from towline_controlplane.errors import Unavailable
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.sqlite import SqliteBackend
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
    """SQLite without the wait for the disk: what dies here are processes, not machines."""

    def connect(self, *, writes: bool) -> Connection:
        """Returns a new connection."""
        connection = super().connect(writes=writes)
        connection.exec_driver_sql("PRAGMA synchronous = OFF")
        connection.rollback()
        return connection


class ProcessDatabase(Database):
    """The database as one process reaches it: one writer, readers beside it, and errors by chance."""

    def __init__(self, shared: Database, fails: Callable[[], bool], chance: random.Random) -> None:
        # No connections of its own: a transaction is never open while another one begins.
        self._shared = shared
        self._fails = fails
        self._chance = chance
        self._writing = asyncio.Lock()

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Returns what `work` returns once it is committed; an error may hide whether it was."""
        fails = self._fails()
        if fails and self._chance.random() < 0.5:
            raise Unavailable("the database is away")
        async with self._writing:
            result = await self._shared.write(work)
        if fails:
            raise Unavailable("the connection to the database was lost while it committed")
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Returns what `work` returns."""
        if self._fails():
            raise Unavailable("the database is away")
        return await self._shared.read(work)


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
