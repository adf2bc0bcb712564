"""The schema of the control plane's database, as a sequence of Alembic migrations.

A migration expands what the release before it can still use; what is no longer used is dropped a release later.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, NullPool, event

_LOCK_WAIT_SECONDS = 60


def upgrade(url: str) -> None:
    """Brings the database at `url` to the newest schema, creating it if need be.

    All or nothing; of several that start at once, one migrates while the others wait.
    """
    with _locked(url) as connection:
        command.upgrade(_config(connection), "head")


def downgrade(url: str, revision: str) -> None:
    """Takes the database at `url` back to `revision` (`base`: to nothing), all or nothing."""
    with _locked(url) as connection:
        command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files(__name__)))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _locked(url: str) -> Generator[Connection]:
    """Yields a connection in a transaction that no other one can write beside; commits it at the end."""
    location = sqlalchemy.make_url(url)
    if location.get_backend_name() != "sqlite" or not location.database:
        raise ValueError("the database URL is not of the form sqlite:///path")
    _create_private(Path(location.database))
    engine = sqlalchemy.create_engine(
        location, poolclass=NullPool, connect_args={"isolation_level": None, "timeout": _LOCK_WAIT_SECONDS}
    )
    event.listen(engine, "begin", _begin_immediate)
    with engine.begin() as connection:
        yield connection


def _create_private(path: Path) -> None:
    """Creates the file, if it is not there, so that only its owner can read the password hashes in it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
