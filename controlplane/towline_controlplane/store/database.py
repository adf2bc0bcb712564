"""The database as the control plane sees it: short transactions that run on threads beside the event loop.

One writer, so that writers queue instead of colliding, and a few readers, each call with a snapshot of its own. What a
transaction does is the caller's affair; what a kind of database needs is its backend's.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import sqlalchemy
from sqlalchemy import Connection

from towline_controlplane.store.sqlite import SqliteBackend
from towline_controlplane.store.statements import Statement

T = TypeVar("T")

_READERS = 4


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction: `now` is the database's clock (µs), read once when it began.

    `connection` is for everyday statements, `driver` (its DBAPI connection) for the hot ones.
    """

    connection: Connection
    driver: Any
    dialect: str
    now: int

    def fetch(self, statement: Statement, *parameters: object) -> list[tuple[Any, ...]]:
        """Returns all rows of a hot statement."""
        return self.driver.execute(statement.text[self.dialect], parameters).fetchall()

    def execute_many(self, statement: Statement, rows: Sequence[Sequence[object]]) -> int:
        """Runs a hot statement once for each of `rows`; returns how many rows of the database it changed in all."""
        if not rows:
            return 0
        cursor = self.driver.cursor()
        cursor.executemany(statement.text[self.dialect], rows)
        return cursor.rowcount


class Backend(Protocol):
    """What differs between kinds of databases."""

    dialect: str

    def connect(self, *, writes: bool) -> Connection:
        """Returns a new connection that begins no transaction by itself."""
        ...

    def begin(self, driver: Any, *, writes: bool) -> int:
        """Begins a transaction and returns the database's time (µs)."""
        ...

    def translate(self, error: BaseException) -> BaseException:
        """Returns Unavailable for a failure of the database itself, any other error as it is."""
        ...

    def close(self) -> None:
        """Gives up what the backend holds beside its connections."""
        ...


class Database:
    """An open database. One per process; use `open`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        try:
            self._writers = _Threads(backend, "store-writer", 1, writes=True)
            self._readers = _Threads(backend, "store-reader", _READERS, writes=False)
        except BaseException:
            backend.close()
            raise

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], int] | None = None, read_only: bool = False) -> "Database":
        """Opens the migrated database at `url`; raises DatabaseInUse if another control plane has its file.

        A `read_only` one may be open beside it. `clock` (µs) stands in for the database's own.
        """
        location = sqlalchemy.make_url(url)
        if location.get_backend_name() != "sqlite" or not location.database:
            raise ValueError("the database URL is not of the form sqlite:///path")
        return cls(SqliteBackend(Path(location.database), clock, read_only=read_only))

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Returns what `work` returns once its transaction is durably committed; rolls back on any exception.

        A caller that is cancelled while it waits cannot know which of the two happened.
        """
        return await self._writers.transact(work)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Returns what `work` returns; all that it reads is of one snapshot, and it cannot write."""
        return await self._readers.transact(work)

    async def close(self) -> None:
        """Waits for the transactions under way, then closes every connection."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.close()
        self._writers.close()
        self._backend.close()


class _Threads:
    """A number of threads, and a connection for each."""

    def __init__(self, backend: Backend, name: str, count: int, *, writes: bool) -> None:
        self._backend = backend
        self._writes = writes
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        for _ in range(count):
            self._idle.put(backend.connect(writes=writes))
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._transact, work)

    def close(self) -> None:
        self._executor.shutdown()
        while not self._idle.empty():
            self._idle.get().close()

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        connection = self._idle.get()
        try:
            return self._run(connection, work)
        except BaseException as error:
            translated = self._backend.translate(error)
            if translated is error:
                raise
            raise translated from error
        finally:
            self._idle.put(connection)

    def _run(self, connection: Connection, work: Callable[[Transaction], T]) -> T:
        driver: Any = connection.connection.dbapi_connection
        try:
            now = self._backend.begin(driver, writes=self._writes)
            result = work(Transaction(connection, driver, self._backend.dialect, now))
            driver.commit()
        finally:
            # After the commit there is nothing to roll back but what SQLAlchemy believes to be open.
            driver.rollback()
            connection.rollback()
        return result
