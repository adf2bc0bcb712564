"""The schema of the control plane's database, as a sequence of Alembic migrations.

A migration expands what the release before it can still use; what is no longer used is dropped a release later.
"""

import os
import random
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, NullPool, event
from sqlalchemy.exc import DBAPIError, OperationalError

_LOCK_WAIT_SECONDS = 60
_LOCK_KEY = 0x746F776C696E65
"""Of the advisory lock that one migrates under: `towline`."""

_TABLE_LOCK_MS = 2_000
"""A statement that waits for its lock makes everybody behind it wait too: it gives up soon, and tries again later."""


class CannotMigrate(Exception):
    """The database cannot be reached, or not be brought to the revision that was asked for."""


def upgrade(url: str) -> str:
    """Brings the database at `url` to the newest schema, creating what is not there, and returns its revision.

    All or nothing; of several that start at once, one migrates while the others wait. Raises CannotMigrate.
    """
    return _migrate(url, lambda config: command.upgrade(config, "head"))


def downgrade(url: str, revision: str) -> str:
    """Takes the database at `url` back to `revision` (`base`: to nothing), all or nothing."""
    return _migrate(url, lambda config: command.downgrade(config, revision))


def _migrate(url: str, work: Callable[[Config], None]) -> str:
    def migrate(connection: Connection) -> str:
        config = Config()
        config.set_main_option("script_location", str(files(__name__)))
        config.attributes["connection"] = connection
        work(config)
        return MigrationContext.configure(connection).get_current_revision() or "base"

    scheme = url.partition("://")[0]
    kinds = {"sqlite": _on_sqlite, "postgresql": _on_postgresql, "postgres": _on_postgresql}
    if scheme not in kinds:
        raise ValueError("the database URL is not of the form sqlite:///path or postgresql://user@host/name")
    try:
        return kinds[scheme](url, migrate)
    except CommandError as error:
        raise CannotMigrate(f"the database is of another release: {error}") from error
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise CannotMigrate(f"the database cannot be migrated: {reason}") from error


def _on_sqlite(url: str, migrate: Callable[[Connection], str]) -> str:
    """Migrates in a transaction that no other one can write beside."""
    location = sqlalchemy.make_url(url)
    if not location.database:
        raise ValueError("the database URL is not of the form sqlite:///path")
    _create_private(Path(location.database))
    engine = sqlalchemy.create_engine(
        location, poolclass=NullPool, connect_args={"isolation_level": None, "timeout": _LOCK_WAIT_SECONDS}
    )
    event.listen(engine, "begin", _begin_immediate)
    with engine.begin() as connection:
        return migrate(connection)


def _create_private(path: Path) -> None:
    """Creates the file, if it is not there, so that only its owner can read the password hashes in it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _on_postgresql(url: str, migrate: Callable[[Connection], str]) -> str:
    """Migrates beside control planes that work, again and again until no table that it needs is in use."""
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: _connect(url), poolclass=NullPool)
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    with _alone(engine):
        while True:
            try:
                with engine.begin() as connection:
                    connection.exec_driver_sql(
                        f"SET LOCAL lock_timeout = {_TABLE_LOCK_MS}; SET LOCAL statement_timeout = 0"
                    )
                    return migrate(connection)
            except OperationalError as error:
                if not isinstance(error.orig, LockNotAvailable) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - no secret


@contextmanager
def _alone(engine: Engine) -> Generator[None]:
    """Keeps others from migrating for as long as a connection of its own lives."""
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET lock_timeout = {int(_LOCK_WAIT_SECONDS * 1000)}")
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK_KEY})")
        connection.commit()
        yield
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK_KEY})")


def _connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    try:
        return psycopg.connect(url, fallback_application_name="towline-migrate", connect_timeout=10)
    except psycopg.ProgrammingError:
        # What libpq says of it holds the URL, and that a password.
        raise ValueError("the database URL is not of the form postgresql://user:password@host/name") from None
