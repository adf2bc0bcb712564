"""Durable stores to measure on: a SQLite file and a PostgreSQL server of one's own, both with every commit synced."""

import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Store:
    """The URL of an empty database, and what it is called in a table of results."""

    name: str
    url: str


@contextmanager
def sqlite() -> Generator[Store]:
    """Yields a file that is not there yet, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="towline-bench-") as folder:
        yield Store("SQLite FULL", f"sqlite:///{folder}/towline.db")


@contextmanager
def postgres() -> Generator[Store]:
    """Yields a new database of a server that was started for it."""
    sys.path.insert(0, str(ROOT / "tests" / "servers"))
    from postgres_server import private_server

    with private_server(fsync=True) as server:
        yield Store("PostgreSQL", server.url(server.create_database()))


def stores(names: str) -> Iterator[Store]:
    """Yields the named ones (separated by commas), one after the other."""
    for name in names.split(","):
        with {"sqlite": sqlite, "postgres": postgres}[name]() as store:
            yield store
