"""PostgreSQL as a backend: any number of control planes on one database.

Writers see what is committed when each statement begins and rely on row locks; readers have one snapshot.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString, cast

import psycopg
import sqlalchemy
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, NullPool
from sqlalchemy.exc import DBAPIError

from towline_controlplane.errors import Unavailable
from towline_controlplane.store.statements import Batch, ManyRows, Statement

_CONNECTION = {
    "connect_timeout": "10",
    "client_encoding": "UTF8",
    "fallback_application_name": "towline-controlplane",
    # A server that vanished without a word is noticed after this long, also amid a statement.
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""Parameters of libpq, unless the URL has others."""

_SETTINGS = (
    "SET statement_timeout = '60s'",
    "SET lock_timeout = '20s'",
    "SET idle_in_transaction_session_timeout = '60s'",
    "SET jit = off",
    # What is answered is on the disk, whatever the default of the database (I8).
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)
_READ_ONLY_SETTINGS = ("SET default_transaction_read_only = on",)
_WRITER_SETTINGS = (
    # The hot statements find their rows by key, however few rows there were when they were planned.
    "SET plan_cache_mode = force_generic_plan",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    # Claims are read in the order of their index, up to their limit, never all of a queue.
    "SET enable_bitmapscan = off",
    "SET enable_sort = off",
)

_BEGIN: Mapping[bool, LiteralString] = {
    True: "BEGIN ISOLATION LEVEL READ COMMITTED",
    False: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}
_NOW: LiteralString = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

_LOST_AGAINST_ANOTHER = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the same again may well succeed."""

_SURELY_ROLLED_BACK = _LOST_AGAINST_ANOTHER | {"0A000"}
"""Also a prepared statement whose columns a migration has changed: the rollback has forgotten it."""

_AWAY = (
    *("08", "53", "57", "58"),  # connections, resources, operators, the system below
    *_LOST_AGAINST_ANOTHER,
    "25006",  # read-only: a standby, or a failover under way
    "25P03",  # idle in a transaction for too long
    "55P03",  # a lock was not to be had in time
)
"""Beginnings of the SQLSTATEs of failures that are not the caller's."""


_FIRST_ROWS = 200
_PLANS_SECONDS = 10.0


class Driver(psycopg.Connection[Any]):
    """A connection that knows when its plans have become old.

    A plan is made for tables as small as they were: one that reads all of an empty table is a bad one soon after. The
    server looks again only once it has counted the rows anew, which may be minutes later.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rows_written = 0
        self._enough_rows = _FIRST_ROWS
        self._planned_at = time.monotonic()

    def has_old_plans(self) -> bool:
        """Tells, once each time, whether rows have doubled or some seconds have passed."""
        now = time.monotonic()
        if self.rows_written < self._enough_rows and now - self._planned_at < _PLANS_SECONDS:
            return False
        self._enough_rows, self._planned_at = max(2 * self.rows_written, _FIRST_ROWS), now
        return True


class PostgresBackend:
    """The database at a URL; libpq's parameters may be in it."""

    dialect = "postgresql"

    def __init__(self, url: str, clock: Callable[[], int] | None = None, *, read_only: bool = False) -> None:
        try:
            self._address = make_conninfo("", **{**_CONNECTION, **conninfo_to_dict(url)})
        except psycopg.ProgrammingError:
            # What libpq says of it holds the URL, and that a password.
            raise ValueError("the database URL is not of the form postgresql://user:password@host/name") from None
        self._clock = clock
        self._settings = (*_SETTINGS, *(_READ_ONLY_SETTINGS if read_only else ()))
        self._engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=self._open,
            poolclass=NullPool,
            hide_parameters=True,
            use_native_hstore=False,
        )

    def connect(self, *, writes: bool) -> Connection:
        """Returns a new connection that begins no transaction by itself."""
        connection = self._engine.connect()
        driver: Any = connection.connection.dbapi_connection
        driver.execute("; ".join((*self._settings, *(_WRITER_SETTINGS if writes else ()))))
        return connection

    def begin(self, driver: Driver, *, writes: bool) -> int:
        """Begins a transaction and returns the time of the server's clock, in one round trip."""
        if driver.has_old_plans():
            driver.execute("DISCARD PLANS")
        if self._clock is not None:
            driver.execute(_BEGIN[writes])
            return self._clock()
        cursor = driver.execute(f"{_BEGIN[writes]}; {_NOW}")
        cursor.nextset()
        [[now]] = cursor.fetchall()
        return now

    def commit(self, driver: Driver) -> None:
        """Commits durably."""
        if driver.info.transaction_status is TransactionStatus.INERROR:
            # The server would answer a COMMIT with a silent rollback.
            raise psycopg.errors.InFailedSqlTransaction("a statement failed, and its error was passed over")
        driver.commit()

    def fetch(self, driver: Driver, statement: Statement, parameters: Sequence[object]) -> list[Any]:
        """Returns all rows of a hot query."""
        return driver.execute(_text(statement), parameters, prepare=True, binary=True).fetchall()

    def execute_many(self, driver: Driver, batches: Sequence[Batch]) -> list[int]:
        """Runs each statement once for all its rows, all in one round trip; returns how many rows each changed."""
        with driver.pipeline() if len(batches) > 1 else contextlib.nullcontext():
            cursors = [self._execute(driver, statement, rows) for statement, rows in batches]
        return [cursor.rowcount for cursor in cursors]

    def is_lost(self, driver: Driver) -> bool:
        """Tells whether the connection is of no more use."""
        return driver.closed

    def may_repeat(self, error: BaseException) -> bool:
        """Tells whether the server has rolled back for a reason that a repetition can outrun."""
        return _sqlstate(_cause(error)) in _SURELY_ROLLED_BACK

    def translate(self, error: BaseException) -> BaseException:
        """Returns Unavailable if the server cannot serve now, any other error as it is."""
        cause = _cause(error)
        if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError) and not cause.sqlstate:
            return Unavailable("the database cannot be reached")
        if isinstance(cause, psycopg.Error) and _sqlstate(cause).startswith(_AWAY):
            return Unavailable(f"the database cannot be used: {cause.diag.message_primary}")
        return error

    def close(self) -> None:
        """Holds nothing beside its connections."""

    def _open(self) -> Driver:
        driver = Driver.connect(self._address, autocommit=True)
        driver.adapters.register_dumper(str, _TextDumper)
        return driver

    def _execute(self, driver: Driver, statement: ManyRows, rows: Sequence[Sequence[object]]) -> "psycopg.Cursor[Any]":
        arrays = [_array(kind, column) for kind, column in zip(statement.types, zip(*rows, strict=True), strict=True)]
        driver.rows_written += len(rows)
        return driver.execute(_text(statement), arrays, prepare=True)


class _TextDumper(Dumper):
    """Texts with a replacement for NUL, which PostgreSQL cannot hold: whatever finds its way here, nothing fails."""

    def dump(self, obj: str) -> bytes:
        return obj.replace("\0", "\ufffd").encode()


def _text(statement: Statement | ManyRows) -> LiteralString:
    return cast("LiteralString", statement.text["postgresql"])


def _array(kind: str, column: Sequence[Any]) -> object:
    """The column as an array: its text, as that has one type however long or empty the values are."""
    if kind == "bytea":
        return list(column)
    if kind == "text":
        return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in column]) + "}"
    return "{" + ",".join(["NULL" if value is None else str(value) for value in column]) + "}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _cause(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _sqlstate(error: BaseException | None) -> str:
    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
