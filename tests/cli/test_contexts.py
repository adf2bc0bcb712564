import json
import stat
from pathlib import Path

import grpc
import pytest
from certificates import authority_and_server
from cli_fakes import FakeControlPlane, Terminal, serving

from towline.v1.auth_service_pb2 import LoginResponse
from towline.v1.user_pb2 import User
from towline_cli.contexts import Context, Contexts, ask_for, read, selected, sign_in, write
from towline_sdk.errors import InvalidArgumentError, TowlineError


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"TOWLINE_CONFIG_DIR": str(folder), **more}


@pytest.fixture(autouse=True)
def _no_options() -> None:
    ask_for("", "", "")


@pytest.fixture
def signs_in(control_plane: FakeControlPlane) -> None:
    control_plane.answers["Login"] = lambda _: LoginResponse(access_token="token-2", user=User(email="a@b.c"))


@pytest.mark.usefixtures("signs_in")
def test_login_is_remembered_for_later_commands(
    towline: Terminal, control_plane: FakeControlPlane, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOWLINE_TOKEN")
    towline("login", "-e", "a@b.c", "--password-stdin", stdin="secret\n")
    monkeypatch.delenv("TOWLINE_SERVER")

    assert towline("whoami").code == 0

    assert control_plane.calls[-1].metadata["authorization"] == "Bearer token-2"
    assert stat.S_IMODE((config_dir / "contexts.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(config_dir.stat().st_mode) == 0o700


def test_a_token_goes_only_to_the_server_that_issued_it(tmp_path: Path) -> None:
    sign_in(Context("one", "one:1"), "token-1", environment(tmp_path))
    sign_in(Context("two", "two:2"), "token-2", environment(tmp_path))

    assert selected(environment(tmp_path)) == Context("two", "two:2", token="token-2")
    assert selected(environment(tmp_path, TOWLINE_SERVER="one:1")).token == "token-1"
    assert selected(environment(tmp_path, TOWLINE_SERVER="three:3")) == Context("three:3", "three:3")
    assert selected(environment(tmp_path, TOWLINE_CONTEXT="one", TOWLINE_SERVER="two:2")).server == "one:1"


def test_the_environment_beats_the_file_and_options_beat_both(tmp_path: Path) -> None:
    write(Contexts("one", {name: Context(name, f"{name}:1", token=f"of-{name}") for name in ("one", "two")}),
          environment(tmp_path))  # fmt: skip
    there = environment(tmp_path, TOWLINE_TOKEN="mine", TOWLINE_CONTEXT="one", TOWLINE_TLS_CA="ca.pem")

    assert selected(there) == Context("one", "one:1", "ca.pem", "mine")
    ask_for("two", "", "")
    assert selected(there) == Context("two", "two:1", "", "of-two")
    ask_for("", "three:3", "other.pem")
    assert selected(there) == Context("three:3", "three:3", "other.pem", "mine")


def test_without_anything_the_default_server_is_used(tmp_path: Path) -> None:
    assert selected(environment(tmp_path)) == Context("default", "127.0.0.1:50051")


def test_the_folder_is_where_desktops_keep_settings(tmp_path: Path) -> None:
    sign_in(Context("one", "one:1"), "token-1", {"XDG_CONFIG_HOME": str(tmp_path)})
    assert (tmp_path / "towline" / "contexts.json").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", json.dumps({"current": "s"}), '{"current": "a", "contexts": {"a": {"x": 1}}}']
)
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "contexts.json").write_text(text)

    with pytest.raises(TowlineError, match=r"contexts\.json is damaged"):
        selected(environment(tmp_path))


@pytest.mark.parametrize("variable", ["TOWLINE_CONTEXT", "TOWLINE_SERVER"])
def test_what_is_not_known_is_refused(variable: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="nowhere"):
        selected(environment(tmp_path, **{variable: "nowhere"}))


def test_contexts_are_added_used_listed_and_removed(
    towline: Terminal, control_plane: FakeControlPlane, config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TOWLINE_SERVER", "TOWLINE_TOKEN"):
        monkeypatch.delenv(variable)
    towline("context", "add", "here", "--server", control_plane.address, "--token-stdin", stdin="key-1\n")
    added = towline("context", "add", "far", "--server", "https://far:443", "--tls-ca", "ca.pem", "-o", "json")

    assert [(each["name"], each["current"], each["signedIn"]) for each in json.loads(added.stdout)["contexts"]] == [
        ("far", False, False),
        ("here", True, True),
    ]
    assert read(environment(config_dir)).named("far").ca_file == str(Path("ca.pem").absolute())
    assert towline("context", "list", "-q").stdout == "far\nhere\n"
    assert towline("--context", "here", "whoami").code == 0
    assert control_plane.calls[-1].metadata["authorization"] == "Bearer key-1"
    towline("context", "use", "far")
    assert read(environment(config_dir)).current == "far"
    assert towline("context", "remove", "far", "-o", "id").stdout == "here\n"
    assert towline("--context", "far", "whoami").code == 2
    assert towline("context", "use", "far").code == 2


def test_a_context_that_is_pointed_elsewhere_loses_its_token(towline: Terminal, config_dir: Path) -> None:
    towline("context", "add", "here", "--server", "one:1", "--token-stdin", stdin="key-1\n")
    towline("context", "add", "here", "--server", "one:1", "--tls-ca", "ca.pem")
    assert read(environment(config_dir)).named("here").token == "key-1"
    towline("context", "add", "here", "--server", "two:2")
    assert read(environment(config_dir)).named("here").token == ""
    assert towline("context", "add", "here", "--server", "two").code == 2


@pytest.mark.usefixtures("signs_in")
def test_who_signs_out_leaves_no_token_behind(towline: Terminal, config_dir: Path) -> None:
    towline("login", "-e", "a@b.c", "--password-stdin", stdin="secret\n")
    (context,) = read(environment(config_dir)).known.values()
    assert context.token == "token-2"
    assert towline("logout").code == 0
    (context,) = read(environment(config_dir)).known.values()
    assert context.token == ""


@pytest.mark.usefixtures("signs_in")
def test_no_command_prints_the_token(towline: Terminal) -> None:
    printed = [
        towline("login", "-e", "a@b.c", "--password-stdin", "-o", form, stdin="secret\n").stdout
        + towline("context", "list", "-o", form).stdout
        for form in ("table", "json", "yaml", "id")
    ]
    assert "a@b.c" in printed[0]
    assert "token-2" not in "".join(printed)
    assert "secret" not in "".join(printed)


def test_a_server_with_tls_is_signed_in_to_and_remembered_with_its_authority(
    towline: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, key, certificate = authority_and_server()
    roots = tmp_path / "ca.pem"
    roots.write_bytes(root)
    for variable in ("TOWLINE_SERVER", "TOWLINE_TOKEN"):
        monkeypatch.delenv(variable)
    with serving(grpc.ssl_server_credentials([(key, certificate)])) as secure:
        secure.answers["Login"] = lambda _: LoginResponse(access_token="token-3")
        server = f"https://{secure.address}"
        signed = towline(
            "--server", server, "--tls-ca", str(roots), "login", "-e", "a@b.c", "--password-stdin", stdin="s\n"
        )
        assert (signed.code, signed.stderr) == (0, "")
        assert towline("whoami").code == 0
        assert secure.calls[-1].metadata["authorization"] == "Bearer token-3"
