import json
import stat
from pathlib import Path

import pytest
from cli_fakes import FakeControlPlane, Terminal

from towline.v1.auth_service_pb2 import LoginResponse
from towline.v1.user_pb2 import User
from towline_cli.sessions import Session, current_session, store_session
from towline_sdk.errors import TowlineError


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"TOWLINE_CONFIG_DIR": str(folder), **more}


def test_login_is_remembered_for_later_commands(
    towline: Terminal, control_plane: FakeControlPlane, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOWLINE_TOKEN")
    user = User(email="a@b.c")
    control_plane.answers["Login"] = lambda _: LoginResponse(access_token="token-2", user=user)
    towline("login", "-e", "a@b.c", "--password-stdin", stdin="secret\n")
    monkeypatch.delenv("TOWLINE_SERVER")

    assert towline("whoami").code == 0

    assert control_plane.calls[-1].metadata["authorization"] == "Bearer token-2"
    assert stat.S_IMODE((config_dir / "sessions.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(config_dir.stat().st_mode) == 0o700


def test_token_goes_only_to_the_server_that_issued_it(tmp_path: Path) -> None:
    store_session(Session("one:1", "token-1"), environment(tmp_path))
    store_session(Session("two:2", "token-2"), environment(tmp_path))

    assert current_session(environment(tmp_path)) == Session("two:2", "token-2")
    assert current_session(environment(tmp_path, TOWLINE_SERVER="one:1")) == Session("one:1", "token-1")
    assert current_session(environment(tmp_path, TOWLINE_SERVER="three:3")) == Session("three:3", "")


def test_environment_beats_the_file(tmp_path: Path) -> None:
    store_session(Session("one:1", "token-1"), environment(tmp_path))

    assert current_session(environment(tmp_path, TOWLINE_TOKEN="mine")) == Session("one:1", "mine")


def test_without_anything_the_default_server_is_used(tmp_path: Path) -> None:
    assert current_session(environment(tmp_path)) == Session("127.0.0.1:50051", "")


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"server": "s"})])
def test_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "sessions.json").write_text(text)

    with pytest.raises(TowlineError, match=r"sessions\.json is damaged"):
        current_session(environment(tmp_path))
