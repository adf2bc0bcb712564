"""Settings of the whole suite, the servers that its processes share, and a search for secrets in all it leaves behind.

Property tests search anew on a developer's machine and are repeatable in CI.
"""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import planted_secrets
import pytest
import s3_server
import structlog
import valkey_server
from hypothesis import settings
from postgres_server import NoPostgres, PostgresServer, SharedPostgres, private_server, shared_server
from s3_server import NoS3, S3Server
from valkey_server import NoValkey, ValkeyServer

from towline_migrations import upgrade

# As in the product: the tracebacks of a log show no values.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback, colors=False),
    ]
)
settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


_REVEALED = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a test whose output, the logs of what ran in its process among it, shows a secret."""
    report = yield
    shown = {name for _, text in report.sections for name in planted_secrets.secrets_in(text.encode(), log=True)}
    if shown and report.passed:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: secrets in the output: {', '.join(sorted(shown))}"
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Searches the logs and databases of all processes that the suite has started, on all its workers."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    factory: pytest.TempPathFactory = getattr(session.config, "_tmp_path_factory")  # noqa: B009 - no public name
    found = list(planted_secrets.search(factory.getbasetemp()))
    session.config.stash[_REVEALED] = found
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter", config: pytest.Config) -> None:
    """Says where secrets were found."""
    if found := config.stash.get(_REVEALED, None):
        terminalreporter.section("SECRETS IN LOGS OR DATABASES", red=True)
        for each in found:
            terminalreporter.line(each)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPostgres]:
    """The PostgreSQL server of this run, one for all its workers."""
    base = tmp_path_factory.getbasetemp()
    try:
        with shared_server((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "postgres") as server:
            yield server
    except NoPostgres as reason:
        _give_up(reason)


@pytest.fixture(scope="session")
def postgres_template(postgres: SharedPostgres) -> str:
    """The name of a migrated database, to be copied."""

    def migrate(url: str) -> None:
        upgrade(url)

    return postgres.template(migrate)


@pytest.fixture(scope="session")
def postgres_database(postgres: SharedPostgres, postgres_template: str) -> Iterator[str]:
    """The name of a migrated database for the tests of this worker, one after the other."""
    name = postgres.create_database(postgres_template)
    yield name
    revealed = {each for data in postgres.files(name) for each in planted_secrets.secrets_in(data, log=False)}
    postgres.drop_database(name)
    if revealed:
        pytest.fail(f"secrets in the PostgreSQL database of this worker: {', '.join(sorted(revealed))}")


@pytest.fixture
def postgres_url(postgres: SharedPostgres, postgres_database: str) -> str:
    """An empty migrated database in PostgreSQL."""
    postgres.empty_database(postgres_database)
    return postgres.url(postgres_database)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "towline.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    """An empty migrated database in SQLite."""
    return f"sqlite:///{shutil.copy(migrated_file, tmp_path / 'towline.db')}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty migrated database of each kind."""
    return request.getfixturevalue(f"{request.param}_url")


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


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a server with the protocol of Redis that nobody stops."""
    try:
        with valkey_server.any_server() as url:
            yield url
    except NoValkey as reason:
        _give_up(reason)


@pytest.fixture(scope="session")
def rclone() -> Iterator[S3Server]:
    """A store with the S3 protocol that checks signatures."""
    try:
        with s3_server.rclone_server() as server:
            yield server
    except NoS3 as reason:
        _give_up(reason)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """A store with the S3 protocol that takes what it gets, whatever its signature and digest."""
    try:
        with s3_server.moto_server() as server:
            yield server
    except NoS3 as reason:
        _give_up(reason)


def _give_up(reason: NoPostgres | NoValkey | NoS3) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"NO SERVER: {reason}")
    pytest.skip(f"NO SERVER, so nothing is known of what needs it: {reason}")
