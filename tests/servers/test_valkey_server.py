import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import server_keeper
from valkey_server import ValkeyServer, any_server, private_server

USER = """
import sys
from valkey_server import private_server

with private_server() as server:
    print(server.pid, flush=True)
    sys.stdin.readline()
"""


def test_it_comes_back_at_its_address_and_empty(valkey: ValkeyServer) -> None:
    first = valkey.pid
    valkey.ask("SET", "key", "value")
    valkey.restart()
    assert valkey.pid != first
    assert valkey.ask("GET", "key") is None


def test_a_frozen_one_goes_on(valkey: ValkeyServer) -> None:
    valkey.ask("SET", "key", "value")
    valkey.freeze()
    valkey.thaw()
    assert valkey.ask("GET", "key") == b"value"


def test_one_that_runs_already_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_TEST_REDIS", "redis://elsewhere")
    with any_server() as url:
        assert url == "redis://elsewhere"


def test_nothing_is_left_of_a_server_even_of_a_frozen_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with private_server() as server:
        pid = server.pid
        server.freeze()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_server_ends_with_a_user_that_is_killed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "TMPDIR": str(tmp_path)}
    user = subprocess.Popen(
        [sys.executable, "-c", USER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert user.stdin is not None
    assert user.stdout is not None
    with user.stdin, user.stdout:
        pid = int(user.stdout.readline())
        os.kill(user.pid, signal.SIGKILL)
        user.wait()
    server_keeper.wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the server outlived its user")
