"""Settings of the whole suite, and the servers that its processes share.

Property tests search anew on a developer's machine and are repeatable in CI.
"""

import os
from collections.abc import Iterator

import pytest
import valkey_server
from hypothesis import settings
from postgres_server import NoPostgres, PostgresServer, SharedPostgres, private_server, shared_server
from valkey_server import NoValkey, ValkeyServer

settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPostgres]:
    """The PostgreSQL server of this run, one for all its workers."""
    base = tmp_path_factory.getbasetemp()
    try:
        with shared_server((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "postgres") as server:
            yield server
    except NoPostgres as reason:
        _give_up(reason)


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that a test may stop, crash and start again."""
    try:
        with private_server() as server:
            yield server
    except NoPostgres as reason:
        _give_up(reason)


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A server with the protocol of Redis that a test may stop, freeze and start again."""
    try:
        with valkey_server.private_server() as server:
            yield server
    except NoValkey as reason:
        _give_up(reason)


def _give_up(reason: NoPostgres | NoValkey) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"NO SERVER: {reason}")
    pytest.skip(f"NO SERVER, so nothing is known of what needs it: {reason}")
