import asyncio
import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from towline_cli import installation as installation_module
from towline_cli.child_settings import Part, Places
from towline_cli.installation import Installation
from towline_sdk.errors import TowlineError

HERE = Path(__file__).parent
PATIENCE_SECONDS = 30.0


@dataclass
class Rig:
    """An installation of stand-ins, and what is known of it."""

    folder: Path
    reports: list[str] = field(default_factory=list[str])

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def journal_file(self) -> Path:
        return self.folder / "journal"

    def installation(
        self, http_port: int = 0, grpc_port: int = 0, inherited: dict[str, str] | None = None
    ) -> Installation:
        stand_in = str(HERE / "stand_in.py")
        return Installation(
            Places(self.data_dir, http_port, grpc_port, slots=3),
            inherited={"PATH": os.environ["PATH"]} | (inherited or {}),
            commands={part: (sys.executable, stand_in, part.value, str(self.journal_file)) for part in Part},
            report=self.reports.append,
        )

    def fate(self, part: Part, fate: str) -> None:
        (self.folder / f"{part}.fate").write_text(fate)

    def journal(self, event: str) -> list[dict[str, Any]]:
        if not self.journal_file.exists():
            return []
        entries = [json.loads(line) for line in self.journal_file.read_text().splitlines()]
        return [entry for entry in entries if entry["event"] == event]

    def names(self, event: str) -> list[str]:
        return [entry["name"] for entry in self.journal(event)]

    def started(self, part: Part) -> list[dict[str, Any]]:
        return [entry for entry in self.journal("start") if entry["name"] == part]

    def left(self) -> list[int]:
        return [entry["pid"] for entry in self.journal("start") if is_alive(entry["pid"])]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in other processes
            await asyncio.sleep(0.01)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_parts_start_and_stop_in_the_order_in_which_they_need_one_another(rig: Rig) -> None:
    async def scenario() -> None:
        async with rig.installation() as running:
            assert running.grpc == "127.0.0.1:40001"
        assert rig.left() == []

    play(scenario())

    assert rig.names("start")[0] == "controlplane"
    assert sorted(rig.names("start")[1:]) == ["agent", "gateway"]
    assert rig.names("stop") == ["agent", "gateway", "controlplane"]
    assert rig.reports == []


def test_each_part_gets_its_settings_and_no_secret_of_another(rig: Rig) -> None:
    async def scenario() -> None:
        inherited = {"TOWLINE_TOKEN": "mine", "DATABASE_URL": "sqlite:///x", "JWT_SECRET": "not this one"}
        async with rig.installation(inherited=inherited) as running:
            assert running.is_first_start
            secrets = running.secrets
        settings: dict[str, dict[str, str]] = {entry["name"]: entry["settings"] for entry in rig.journal("start")}
        assert settings["controlplane"]["JWT_SECRET"] == secrets.jwt_secret
        assert settings["controlplane"]["TOWLINE_SECRETS_KEY"] == secrets.secrets_key
        assert settings["agent"]["TOWLINE_SECRETS_KEY"] is settings["gateway"]["TOWLINE_SECRETS_KEY"] is None
        assert settings["controlplane"]["ADMIN_PASSWORD"] == secrets.admin_password
        assert settings["controlplane"]["DATABASE_URL"] == "sqlite:///x"
        for part in ("gateway", "agent"):
            assert settings[part]["TOWLINE_SERVER"] == "127.0.0.1:40001"
            assert settings[part]["JWT_SECRET"] is settings[part]["ADMIN_PASSWORD"] is None
            assert settings[part]["DATABASE_URL"] is settings[part]["TOWLINE_TOKEN"] is None

    play(scenario())


def test_secrets_are_private_and_stay_the_same(rig: Rig) -> None:
    async def scenario() -> None:
        async with rig.installation() as first:
            pass
        async with rig.installation() as second:
            pass
        assert (first.is_first_start, second.is_first_start) == (True, False)
        assert first.secrets == second.secrets
        assert len(bytes.fromhex(first.secrets.jwt_secret)) == 32
        assert len(base64.b64decode(first.secrets.secrets_key, validate=True)) == 32

    play(scenario())

    for name in ("secrets.json", "run/enrollment-token", "logs/agent.log"):
        assert stat.S_IMODE((rig.data_dir / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(rig.data_dir.stat().st_mode) == 0o700


def test_a_file_from_before_there_were_secrets_gets_a_key(rig: Rig) -> None:
    async def scenario() -> None:
        async with rig.installation() as first:
            pass
        file = rig.data_dir / "secrets.json"
        known = json.loads(file.read_bytes())
        del known["secrets_key"]
        file.write_text(json.dumps(known))
        async with rig.installation() as second:
            pass
        async with rig.installation() as third:
            pass
        assert second.secrets == third.secrets
        assert second.secrets.jwt_secret == first.secrets.jwt_secret
        assert second.secrets.secrets_key != first.secrets.secrets_key

    play(scenario())


@pytest.mark.parametrize("part", list(Part))
def test_part_that_dies_is_started_again_on_its_port(part: Part, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation_module, "FIRST_RESTART_SECONDS", 0.01)

    async def scenario() -> None:
        async with rig.installation():
            os.kill(rig.started(part)[0]["pid"], signal.SIGKILL)
            await until(lambda: f"the {part} is up again" in rig.reports)
        assert rig.left() == []

    play(scenario())

    assert f"the {part} was killed by SIGKILL; starting it again" in rig.reports[0]
    assert len(rig.journal("start")) == 4
    if part is Part.CONTROL_PLANE:
        assert [entry["settings"]["GRPC_PORT"] for entry in rig.started(part)] == ["0", "40001"]


def test_part_that_keeps_dying_is_reported_with_its_last_log_lines(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation_module, "FIRST_RESTART_SECONDS", 0.0)

    async def scenario() -> None:
        async with rig.installation():
            rig.fate(Part.GATEWAY, "broken")
            os.kill(rig.started(Part.GATEWAY)[0]["pid"], signal.SIGTERM)
            await until(lambda: len(rig.reports) >= 3)

    play(scenario())

    assert rig.reports[0].startswith("the gateway ended with code 0")
    assert "the gateway ended with code 3" in rig.reports[1]
    assert rig.reports[2].endswith("\n    something is wrong")


def test_part_that_cannot_start_ends_everything(rig: Rig) -> None:
    rig.fate(Part.AGENT, "broken")

    async def scenario() -> None:
        with pytest.raises(TowlineError, match=r"the agent ended with code 3\n    something is wrong"):
            await rig.installation().start()
        assert rig.left() == []
        assert "controlplane" in rig.names("stop")

    play(scenario())


def test_part_that_ignores_the_request_to_stop_is_killed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation_module, "GRACE_SECONDS", 0.2)
    rig.fate(Part.AGENT, "stubborn")

    async def scenario() -> None:
        async with rig.installation():
            pass
        assert rig.left() == []

    play(scenario())

    assert rig.reports == ["the agent did not stop in 0 s and was killed"]
    assert rig.names("stop") == ["gateway", "controlplane"]


def test_second_installation_on_the_same_folder_is_refused(rig: Rig) -> None:
    async def scenario() -> None:
        async with rig.installation():
            with pytest.raises(TowlineError, match=f"in use by process {os.getpid()}"):
                await rig.installation().start()
            assert len(rig.left()) == 3
        async with rig.installation():
            pass

    play(scenario())


@pytest.mark.parametrize(("option", "words"), [("http_port", "--http-port"), ("grpc_port", "--grpc-port")])
def test_taken_port_names_the_setting_and_starts_nothing(option: str, words: str, rig: Rig) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(TowlineError, match=f"port {port} is taken: choose another with {words}"):
                await rig.installation(**{option: port}).start()
        assert rig.journal("start") == []

    play(scenario())


def test_no_child_outlives_a_parent_that_is_killed(rig: Rig) -> None:
    command = [sys.executable, str(HERE / "stand_in_up.py"), str(rig.data_dir), str(rig.journal_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        assert len(rig.left()) == 3
        parent.kill()

    play(until(lambda: rig.left() == []))

    async def again() -> None:
        async with rig.installation():
            assert len(rig.left()) == 3

    play(again())
