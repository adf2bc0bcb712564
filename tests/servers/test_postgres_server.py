import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import server_keeper
from postgres_server import Prepare, SharedPostgres, installations, private_server

WAYS = list(installations())


@pytest.mark.parametrize("way", WAYS, ids=range(len(WAYS)))
def test_every_way_to_run_it_works(way: Prepare) -> None:
    with private_server(way) as server:
        assert server.fetch("SHOW fsync") == [("on",)]
        with psycopg.connect(server.tcp_url()) as connection:
            assert connection.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_it_comes_back_with_what_was_committed(mode: str) -> None:
    with private_server() as server:
        database = server.create_database()
        server.fetch("CREATE TABLE kept AS SELECT 7 AS x", database=database)
        first = server.pid
        server.restart(mode)
        assert server.pid != first
        assert server.fetch("SELECT x FROM kept", database=database) == [(7,)]


def test_nothing_is_left_of_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private_server() as server:
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(tmp_path.iterdir()) == []


USER_OF_SHARED = """
import sys
from pathlib import Path
from postgres_server import shared_server

with shared_server(Path(sys.argv[1])) as server:
    name = server.template(lambda url: print("built", flush=True))
    print(server.fetch("SELECT pg_postmaster_start_time()::text")[0][0], name, flush=True)
    sys.stdin.readline()
"""


def start_user(folder: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", USER_OF_SHARED, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def read_line(user: "subprocess.Popen[str]") -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def test_a_shared_server_is_one_and_ends_with_the_last_of_its_users_however_they_end(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    first = start_user(folder)
    assert read_line(first) == "built"
    line = read_line(first)
    second = start_user(folder)
    assert read_line(second) == line
    first.communicate("\n", timeout=30)
    assert server_keeper.is_running(folder / "users")
    second.send_signal(signal.SIGKILL)
    second.communicate(timeout=30)
    server_keeper.wait_for_end(folder / "users")
    third = start_user(folder)
    assert read_line(third) == "built"
    assert read_line(third) != line
    third.communicate("\n", timeout=30)
    assert not server_keeper.is_running(folder / "users")


def test_a_database_is_a_copy_of_its_template(postgres: SharedPostgres) -> None:
    original = postgres.create_database()
    postgres.fetch("CREATE TABLE copied AS SELECT 7 AS x", database=original)
    copy = postgres.create_database(original)
    assert postgres.fetch("SELECT x FROM copied", database=copy) == [(7,)]
    postgres.empty_database(copy)
    assert postgres.fetch("SELECT x FROM copied", database=copy) == []
    for name in (original, copy):
        postgres.drop_database(name)
    assert postgres.fetch("SELECT 1 FROM pg_database WHERE datname IN (%s, %s)", original, copy) == []
