"""Identity and settings."""

import asyncio
import json
from collections import deque
from pathlib import Path

import pytest
from pydantic import ValidationError
from running_agent import run

from towline.v1.agent_service_pb2 import EnrollRequest
from towline_agent.clock import Backoff
from towline_agent.control_plane import ControlPlaneError, CredentialRefused, RequestRefused, Unavailable
from towline_agent.enrollment import Identity, NotEnrolled, enroll, load, save
from towline_agent.files import lock_folder
from towline_agent.settings import Settings, default_name
from towline_agent.testing import FakeControlPlane

REQUEST = EnrollRequest(token="t", name="n")


def test_an_identity_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "credential.json"
    assert load(file) is None
    save(file, Identity("id", "secret"))
    assert load(file) == Identity("id", "secret")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["credential.json"]
    assert "secret" not in repr(Identity("id", "secret"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"agentId": "x"}'])
def test_a_damaged_identity_is_not_replaced_silently(tmp_path: Path, text: str) -> None:
    (tmp_path / "credential.json").write_text(text)
    with pytest.raises(NotEnrolled, match="damaged"):
        load(tmp_path / "credential.json")


def test_enrolling_outlasts_an_absent_control_plane() -> None:
    async def scenario() -> None:
        fake, waits = FakeControlPlane(), list[float]()

        async def pause(seconds: float) -> None:
            waits.append(seconds)

        fake.errors["enroll"] = deque([Unavailable("away")] * 8)
        identity = await enroll(fake.enroll, REQUEST, Backoff(lambda: 1.0), pause)
        assert identity == Identity("id-of-n", "secret")
        assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]

    run(scenario)


@pytest.mark.parametrize(
    ("error", "message"), [(CredentialRefused("used up"), "token was refused"), (RequestRefused("taken"), "name 'n'")]
)
def test_a_refusal_says_what_to_do(error: ControlPlaneError, message: str) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        fake.errors["enroll"] = deque([error])
        with pytest.raises(NotEnrolled, match=message):
            await enroll(fake.enroll, REQUEST, Backoff(lambda: 1.0), asyncio.sleep)

    run(scenario)


def read(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings.model_validate({})


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    settings = read(
        monkeypatch,
        TOWLINE_AGENT_LABELS="zone=a, gpu = none,empty=",
        TOWLINE_AGENT_PLUGINS="SHELL, my-plugin,,",
        TOWLINE_ENROLLMENT_TOKEN="",
        TOWLINE_ENROLLMENT_TOKEN_FILE=str(tmp_path / "token"),
        TOWLINE_READY_FILE="",
        LOG_LEVEL="debug",
    )
    assert settings.labels == {"zone": "a", "gpu": "none", "empty": ""}
    assert settings.plugins == ["SHELL", "my-plugin"]
    assert settings.read_enrollment_token() == "from-file"
    assert (settings.ready_file, settings.log_level, settings.slots) == (None, "DEBUG", 4)


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, TOWLINE_ENROLLMENT_TOKEN="hush")
    assert "hush" not in repr(settings)
    assert settings.read_enrollment_token() == "hush"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOWLINE_AGENT_SLOTS", "0"),
        ("TOWLINE_AGENT_SLOTS", "1001"),
        ("TOWLINE_AGENT_NAME", "1st"),
        ("TOWLINE_AGENT_LABELS", "zone"),
        ("TOWLINE_SERVER", "localhost"),
        ("TOWLINE_SERVER", "one:1,two"),
        ("LOG_LEVEL", "loud"),
        ("TOWLINE_AGENT_DRAIN_SECONDS", "-1"),
    ],
)
def test_settings_that_cannot_work_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        read(monkeypatch, **{name: value})


@pytest.mark.parametrize(
    ("host", "name"), [("vm", "vm"), ("3f2a", "agent-3f2a"), ("a b.c", "a-b.c"), ("x" * 500, "x" * 120)]
)
def test_any_host_name_makes_an_agent_name(monkeypatch: pytest.MonkeyPatch, host: str, name: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert default_name() == name


def test_a_state_folder_has_one_owner(tmp_path: Path) -> None:
    lock_folder(tmp_path)
    with pytest.raises(BlockingIOError):
        lock_folder(tmp_path)


def test_the_credential_file_is_plain_json(tmp_path: Path) -> None:
    save(tmp_path / "c", Identity("id", "secret"))
    assert json.loads((tmp_path / "c").read_bytes()) == {"agentId": "id", "credential": "secret"}
