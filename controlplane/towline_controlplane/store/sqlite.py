"""SQLite as a backend: WAL, every commit on the disk before it is answered, one control plane per file."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, NullPool
from sqlalchemy.exc import DBAPIError

from towline_controlplane.errors import Unavailable
from towline_controlplane.store.statements import Batch, Statement

_PRAGMAS = (
    # Foreign writers, such as a backup, are waited for this long.
    "busy_timeout = 30000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -65536",
    # A checkpoint syncs in the middle of somebody's commit: rarer and larger ones cost less in all.
    "wal_autocheckpoint = 8000",
    "journal_size_limit = 67108864",
)

_AWAY = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN"})


class DatabaseInUse(Exception):
    """Another control plane has the database file open."""


class LockFile:
    """A lock that lasts as long as the process that took it, however that ends."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise DatabaseInUse(f"process {holder} holds {path}: a SQLite file serves one control plane") from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Lets the next one take it. The file stays: without it two processes could lock two files of one name."""
        self._file.close()


class SqliteBackend:
    """The database file at `path`, locked against other control planes until `close`.

    A `read_only` one takes no lock, so that it can look on while a control plane works, and refuses to write.
    """

    dialect = "sqlite"

    def __init__(self, path: Path, clock: Callable[[], int] | None = None, *, read_only: bool = False) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"there is no database at {path}: it has not been migrated")
        self._uri = f"{path.resolve().as_uri()}?mode=rw"
        self._clock = clock or _wall_clock
        self._lock = None if read_only else LockFile(path.with_name(f"{path.name}.lock"))
        self._engine = sqlalchemy.create_engine(
            "sqlite://", creator=self._open, poolclass=NullPool, hide_parameters=True
        )

    def connect(self, *, writes: bool) -> Connection:
        """Returns a new connection that begins no transaction by itself."""
        connection = self._engine.connect()
        if not writes:
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.rollback()
        return connection

    def begin(self, driver: sqlite3.Connection, *, writes: bool) -> int:
        """Begins a transaction and returns the time of the host, which is the clock of an embedded database."""
        if writes and self._lock is None:
            raise PermissionError("the database is open to read only")
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        return self._clock()

    def commit(self, driver: sqlite3.Connection) -> None:
        """Commits durably."""
        driver.commit()

    def fetch(self, driver: sqlite3.Connection, statement: Statement, parameters: Sequence[Any]) -> list[Any]:
        """Returns all rows of a hot query."""
        return driver.execute(statement.text[self.dialect], parameters).fetchall()

    def execute_many(self, driver: sqlite3.Connection, batches: Sequence[Batch]) -> list[int]:
        """Runs each statement for each of its rows; returns how many rows each changed in all."""
        cursor = driver.cursor()
        return [cursor.executemany(statement.text[self.dialect], rows).rowcount for statement, rows in batches]

    def is_lost(self, driver: sqlite3.Connection) -> bool:
        """A connection to a file is never lost."""
        return False

    def may_repeat(self, error: BaseException) -> bool:
        """Nothing runs beside the one writer that could make it roll back."""
        return False

    def translate(self, error: BaseException) -> BaseException:
        """Returns Unavailable if the file is locked, full or cannot be reached, any other error as it is."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, sqlite3.Error):
            return error
        name = "_".join(getattr(cause, "sqlite_errorname", "").split("_")[:2])
        return Unavailable(f"the database cannot be used: {cause} ({name})") if name in _AWAY else error

    def close(self) -> None:
        """Releases the lock on the file."""
        if self._lock is not None:
            self._lock.release()

    def _open(self) -> sqlite3.Connection:
        driver = sqlite3.connect(
            self._uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            for pragma in _PRAGMAS:
                driver.execute(f"PRAGMA {pragma}")
        except BaseException:
            driver.close()
            raise
        return driver


def _wall_clock() -> int:
    return time.time_ns() // 1_000
