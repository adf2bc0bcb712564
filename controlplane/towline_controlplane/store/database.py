"""The database as the control plane sees it: short transactions that run on threads beside the event loop.

One writer, so that writers queue instead of colliding, and a few readers, each call with a snapshot of its own. What a
transaction does is the caller's affair; what a kind of database needs is its backend's.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import sqlalchemy
import structlog
from sqlalchemy import Connection

from towline_controlplane.store.postgres import PostgresBackend
from towline_controlplane.store.sqlite import SqliteBackend
from towline_controlplane.store.statements import Batch, Statement

T = TypeVar("T")

_READERS = 4
_REPETITIONS = 5
_PAUSE_SECONDS = 0.01

log = structlog.get_logger(__name__)


class Backend(Protocol):
    """What differs between kinds of databases."""

    dialect: str

    def connect(self, *, writes: bool) -> Connection:
        """Returns a new connection that begins no transaction by itself."""
        ...

    def begin(self, driver: Any, *, writes: bool) -> int:
        """Begins a transaction and returns the database's time (µs)."""
        ...

    def commit(self, driver: Any) -> None:
        """Commits durably."""
        ...

    def fetch(self, driver: Any, statement: Statement, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        """Returns all rows of a hot query."""
        ...

    def execute_many(self, driver: Any, batches: Sequence[Batch]) -> list[int]:
        """Runs hot statements, each for all its rows; returns how many rows of the database each changed."""
        ...

    def is_lost(self, driver: Any) -> bool:
        """Tells whether a connection is of no more use."""
        ...

    def may_repeat(self, error: BaseException) -> bool:
        """Tells whether the database has surely rolled back, for a reason that a repetition can outrun."""
        ...

    def translate(self, error: BaseException) -> BaseException:
        """Returns Unavailable for a failure of the database itself, any other error as it is."""
        ...

    def close(self) -> None:
        """Gives up what the backend holds beside its connections."""
        ...


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction: `now` is the database's clock (µs), read once when it began.

    `connection` is for everyday statements, `driver` (its DBAPI connection) for the hot ones.
    """

    connection: Connection
    driver: Any
    backend: Backend
    now: int

    @property
    def dialect(self) -> str:
        """The kind of database."""
        return self.backend.dialect

    def fetch(self, statement: Statement, *parameters: object) -> list[tuple[Any, ...]]:
        """Returns all rows of a hot query."""
        return self.backend.fetch(self.driver, statement, parameters)

    def execute_many(self, *batches: Batch) -> list[int]:
        """Runs hot statements in their order, each for all its rows, in one round trip; returns how many each changed.

        A row counts once for each time that a statement changed it.
        """
        work = [(index, batch) for index, batch in enumerate(batches) if batch[1]]
        changed = [0] * len(batches)
        if work:
            counts = self.backend.execute_many(self.driver, [batch for _, batch in work])
            for (index, _), count in zip(work, counts, strict=True):
                changed[index] = count
        return changed


class Database:
    """An open database. One per process; use `open`."""

    def __init__(self, backend: Backend, readers: int = _READERS) -> None:
        self._backend = backend
        try:
            self._writers = _Threads(backend, "store-writer", 1, writes=True)
            self._readers = _Threads(backend, "store-reader", readers, writes=False)
        except BaseException:
            backend.close()
            raise

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], int] | None = None, read_only: bool = False) -> "Database":
        """Opens the migrated database at `url`; raises Unavailable if it cannot be reached.

        Raises DatabaseInUse if another control plane has its file; a `read_only` one may be open beside it. `clock`
        (µs) stands in for the database's own.
        """
        return cls(_backend(url, clock, read_only=read_only))

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


def _backend(url: str, clock: Callable[[], int] | None, *, read_only: bool) -> Backend:
    scheme = url.partition("://")[0]
    if scheme in ("postgresql", "postgres"):
        return PostgresBackend(url, clock, read_only=read_only)
    path = sqlalchemy.make_url(url).database if scheme == "sqlite" else None
    if not path:
        raise ValueError("the database URL is not of the form sqlite:///path or postgresql://user@host/name")
    return SqliteBackend(Path(path), clock, read_only=read_only)


class _Threads:
    """A number of threads, and a link for each."""

    def __init__(self, backend: Backend, name: str, count: int, *, writes: bool) -> None:
        self._idle: SimpleQueue[_Link] = SimpleQueue()
        for _ in range(count):
            self._idle.put(_Link(backend, writes=writes))
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._transact, work)

    def close(self) -> None:
        self._executor.shutdown()
        while not self._idle.empty():
            self._idle.get().close()

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        link = self._idle.get()
        try:
            return link.transact(work)
        finally:
            self._idle.put(link)


class _Link:
    """A connection that is made anew when it is lost; one thread uses it at a time."""

    def __init__(self, backend: Backend, *, writes: bool) -> None:
        self._backend = backend
        self._writes = writes
        self._connection: Connection | None = None
        self._driver: Any = None
        self._committing = False
        self._is_away = False
        with self._translated_errors():
            self._connect()

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Returns what `work` returns, in a transaction of its own; raises Unavailable if the database is away.

        What the database surely rolled back is repeated: a transaction that lost against another one, and one whose
        connection was gone before the commit was sent.
        """
        with self._translated_errors():
            for repetition in itertools.count():
                try:
                    return self._attempt(work)
                except BaseException as error:
                    if not self._may_repeat(error, repetition):
                        raise
                time.sleep(random.uniform(0, _PAUSE_SECONDS * 2**repetition))  # noqa: S311 - no secret
            raise AssertionError

    def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._backend.is_lost(self._driver):
            connection.invalidate()
        connection.close()

    def _attempt(self, work: Callable[[Transaction], T]) -> T:
        self._committing = False
        connection = self._connect()
        try:
            now = self._backend.begin(self._driver, writes=self._writes)
            result = work(Transaction(connection, self._driver, self._backend, now))
            self._committing = True
            self._backend.commit(self._driver)
        finally:
            if not self._backend.is_lost(self._driver):
                # After the commit there is nothing to roll back but what SQLAlchemy believes to be open.
                self._driver.rollback()
                connection.rollback()
        return result

    def _connect(self) -> Connection:
        if self._connection is None or self._backend.is_lost(self._driver):
            self.close()
            self._connection = self._backend.connect(writes=self._writes)
            self._driver = self._connection.connection.dbapi_connection
        return self._connection

    def _may_repeat(self, error: BaseException, repetition: int) -> bool:
        if self._backend.may_repeat(error):
            return repetition < _REPETITIONS
        was_lost = self._connection is not None and self._backend.is_lost(self._driver)
        return was_lost and not self._committing and repetition == 0

    @contextmanager
    def _translated_errors(self) -> Generator[None]:
        try:
            yield
        except BaseException as error:
            translated = self._backend.translate(error)
            if translated is error:
                raise
            self._note(away=True, reason=str(getattr(error, "orig", error)))
            # The next transaction begins with a new connection, perhaps to another server.
            self.close()
            raise translated from error
        self._note(away=False)

    def _note(self, *, away: bool, reason: str = "") -> None:
        if away and not self._is_away:
            log.warning("the database cannot be used", reason=reason)
        if self._is_away and not away:
            log.info("the database can be used again")
        self._is_away = away
