"""`towline agent enroll` as a process, against a control plane over real gRPC."""

import asyncio
import json
import os
import sys
from collections import deque
from pathlib import Path

import pytest
from fake_agent_service import serve
from running_agent import run

from towline_agent.control_plane import ControlPlaneError, CredentialRefused, RequestRefused, Unavailable
from towline_agent.enroll import ExitCode
from towline_agent.files import lock_folder, private_folder
from towline_agent.testing import FakeControlPlane


async def enroll(folder: Path, *arguments: str, stdin: str = "", **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "towline_agent.enroll", "--state-dir", str(folder / "state"), *arguments),
        env={"PATH": os.environ["PATH"], **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, said.decode(), errors.decode()


def test_a_machine_is_enrolled_with_its_settings(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with serve(fake) as (address, _):
            options = ("--server", address, "--name", "w1", "--labels", "zone=a,gpu=no", "--slots", "7")
            code, said, errors = await enroll(tmp_path, *options, stdin="one-time\n")
        assert (code, errors) == (ExitCode.OK, "")
        assert "w1 (id-of-w1) is enrolled" in said
        assert [request.token for request in fake.enrollments] == ["one-time"]
        state = tmp_path / "state"
        credential = json.loads((state / "credential.json").read_text())
        assert credential == {"agentId": "id-of-w1", "credential": "secret"}
        settings = (state / "agent.env").read_text()
        assert f'TOWLINE_SERVER="{address}"' in settings
        assert 'TOWLINE_AGENT_LABELS="zone=a,gpu=no"' in settings
        assert "one-time" not in settings
        assert "secret" not in settings
        modes = {file.name: file.stat().st_mode & 0o777 for file in (state, *state.iterdir())}
        assert modes == {"state": 0o700, "credential.json": 0o600, "agent.env": 0o600, "lock": 0o600}

    run(scenario)


def test_repeated_it_keeps_the_identity_and_takes_the_new_settings(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with serve(fake) as (address, _):
            await enroll(tmp_path, "--server", address, "--name", "w1", "--slots", "7", TOWLINE_ENROLLMENT_TOKEN="t")
            code, said, _ = await enroll(tmp_path, "--labels", "a=b")
            assert (code, "was enrolled before" in said) == (ExitCode.OK, True)
            settings = (tmp_path / "state/agent.env").read_text()
            assert 'SLOTS="7"' in settings
            assert 'LABELS="a=b"' in settings
            assert address in settings
            code, _, errors = await enroll(tmp_path, "--name", "w2")
            assert (code, "belongs to the agent w1" in errors) == (ExitCode.REFUSED, True)
        assert len(fake.enrollments) == 1

    run(scenario)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CredentialRefused("the enrollment token is unknown, used up or expired"), ["used up or expired", "new one"]),
        (RequestRefused("an agent with this name exists"), ["refused the name 'w1'", "exists"]),
    ],
)
def test_a_refusal_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, error: ControlPlaneError, words: list[str]
) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        fake.errors["enroll"] = deque([error])
        async with serve(fake) as (address, _):
            code, _, errors = await enroll(tmp_path, "--server", address, "--name", "w1", stdin="t")
        assert (code, errors.count("\n")) == (ExitCode.REFUSED, 1)
        assert all(word in errors for word in words), errors
        assert [file.name for file in (tmp_path / "state").iterdir()] == ["lock"]

    run(scenario)


def test_a_control_plane_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        fake.errors["enroll"] = deque([Unavailable("starting")] * 2)
        async with serve(fake) as (address, _):
            assert (await enroll(tmp_path, "--server", address, stdin="t"))[0] == ExitCode.OK

    run(scenario)


def test_one_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        code, _, errors = await enroll(tmp_path, "--server", "127.0.0.1:1", "--timeout", "0.5", stdin="t")
        assert code == ExitCode.UNAVAILABLE
        assert "127.0.0.1:1 did not answer in 0.5 s, tried " in errors
        assert "UNAVAILABLE" in errors
        assert errors.count("\n") == 1

    run(scenario)


def test_a_token_on_the_command_line_is_taken_with_a_warning(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        (tmp_path / "token").write_text("of-file\n")
        async with serve(fake) as (address, _):
            code, _, errors = await enroll(tmp_path / "a", "--server", address, "--token", "of-argv")
            assert (code, "every user of this machine" in errors) == (ExitCode.OK, True)
            file = str(tmp_path / "token")
            code, _, errors = await enroll(tmp_path / "b", "--server", address, "--token-file", file)
            assert (code, errors) == (ExitCode.OK, "")
        assert [request.token for request in fake.enrollments] == ["of-argv", "of-file"]

    run(scenario)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--server", "nowhere"), "host:port"),
        (("--slots", "0"), "TOWLINE_AGENT_SLOTS"),
        (("--name", "1"), "TOWLINE_AGENT_NAME"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_asked(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    async def scenario() -> None:
        code, _, errors = await enroll(tmp_path, *arguments, stdin="t")
        assert (code, words in errors) == (ExitCode.INVALID_INPUT, True)
        assert not (tmp_path / "state").exists()

    run(scenario)


def test_nothing_is_enrolled_beside_an_agent_that_enrolls(tmp_path: Path) -> None:
    async def scenario() -> None:
        lock = lock_folder(private_folder(tmp_path / "state"))
        code, _, errors = await enroll(tmp_path, stdin="t")
        assert (code, "stop it first" in errors) == (ExitCode.REFUSED, True)
        os.close(lock)
        code, _, errors = await enroll(tmp_path, stdin="\n")
        assert (code, "token is empty" in errors) == (ExitCode.REFUSED, True)

    run(scenario)
