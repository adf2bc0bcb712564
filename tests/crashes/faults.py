"""A backend that counts what a control plane does to its database, and lets one of these things go wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, event

from towline_controlplane.store.database import Backend
from towline_controlplane.store.statements import Batch, Statement

_CARELESS = {"sqlite": "PRAGMA synchronous = OFF", "postgresql": "SET synchronous_commit = off"}


class Exit(BaseException):
    """The process of the control plane ended here."""


@dataclass(slots=True)
class Faults:
    """What happens at the point `at`, counted from 1: before each begin, statement and commit, and after each commit.

    `strike` gets the driver's connection and whether the commit is done; without one the process ends.
    """

    at: int = 0
    strike: Callable[[Any, bool], None] | None = None
    passed: int = 0
    ended: bool = False

    @property
    def struck(self) -> bool:
        """Tells whether the point was reached."""
        return 0 < self.at <= self.passed

    def point(self, driver: Any, *, committed: bool = False) -> None:
        """Counts, and strikes if this is the point. Nothing happens to the database after the process has ended."""
        self.passed += 1
        if self.ended:
            raise Exit
        if self.passed != self.at:
            return
        if self.strike is not None:
            self.strike(driver, committed)
            return
        self.ended = True
        driver.rollback()  # as the database does when it notices, which may take it a moment
        raise Exit


class FaultyBackend:
    """Another backend with faults in what it writes; `faults` are those of the process that lives now."""

    def __init__(self, inner: Backend) -> None:
        self.dialect = inner.dialect
        self.faults = Faults()
        self._inner = inner
        self._writers: list[object] = []
        self._gone: list[object] = []

    def start_process(self, faults: Faults) -> None:
        """Goes on for another process, which has connections of its own to write with."""
        if self.faults.ended:
            self._gone, self._writers = self._writers, []
        self.faults = faults

    def connect(self, *, writes: bool) -> Connection:
        """Connects, with less care for the disk: what is tested is that the process ends, not the machine."""
        if self.faults.ended:
            raise Exit
        connection = self._inner.connect(writes=writes)
        driver: Any = connection.connection.dbapi_connection
        driver.execute(_CARELESS[self.dialect])
        if writes:
            self._writers.append(driver)
            event.listen(connection, "before_cursor_execute", lambda *_: self._pass(driver))
        return connection

    def begin(self, driver: Any, *, writes: bool) -> int:
        """Begins, unless that is the point."""
        self._pass(driver)
        return self._inner.begin(driver, writes=writes)

    def commit(self, driver: Any) -> None:
        """Commits, unless the point is before; the caller does not get to know if it is behind."""
        self._pass(driver)
        self._inner.commit(driver)
        self._pass(driver, committed=True)

    def fetch(self, driver: Any, statement: Statement, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        """Fetches, unless that is the point."""
        self._pass(driver)
        return self._inner.fetch(driver, statement, parameters)

    def execute_many(self, driver: Any, batches: Sequence[Batch]) -> list[int]:
        """Executes one after the other, until that is the point."""
        counts: list[int] = []
        for batch in batches:
            self._pass(driver)
            counts += self._inner.execute_many(driver, [batch])
        return counts

    def is_lost(self, driver: Any) -> bool:
        """With the process its connections are gone."""
        return self.faults.ended or self._inner.is_lost(driver) or any(gone is driver for gone in self._gone)

    def may_repeat(self, error: BaseException) -> bool:
        """Asks the other backend."""
        return self._inner.may_repeat(error)

    def translate(self, error: BaseException) -> BaseException:
        """Asks the other backend."""
        return self._inner.translate(error)

    def close(self) -> None:
        """Closes the other backend."""
        self._inner.close()

    def _pass(self, driver: object, *, committed: bool = False) -> None:
        if self.faults.ended or any(writer is driver for writer in self._writers):
            self.faults.point(driver, committed=committed)
