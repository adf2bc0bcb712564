"""The agent as a process, with real plugins, against the fake control plane over real gRPC."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_agent_service import serve
from running_agent import run
from test_archive import bundle, file
from test_bundles import digest_of

from towline.v1.agent_service_pb2 import AttemptResult, Offer
from towline_agent.__main__ import ExitCode
from towline_agent.control_plane import AgentUnsupported, ControlPlaneError, CredentialRefused, SessionReplaced
from towline_agent.testing import FakeControlPlane, make_offer

SLEEPER = b"#!/bin/sh\necho started\nexec sleep 600\n"
SHOUT = b'#!/bin/sh\necho hello\necho \'{"text": "HELLO"}\' >&3\n'


@dataclass
class AgentProcess:
    process: asyncio.subprocess.Process
    ready_file: Path

    async def ready(self) -> str:
        while not self.ready_file.exists():  # noqa: ASYNC110 - a file is what it tells the world
            await asyncio.sleep(0.01)
        return json.loads(self.ready_file.read_bytes())["agentId"]

    async def ended(self) -> tuple[int, str]:
        _, errors = await self.process.communicate()
        return self.process.returncode or 0, errors.decode()


@contextlib.asynccontextmanager
async def agent_process(folder: Path, address: str, **environment: str) -> AsyncGenerator[AgentProcess, None]:
    ready_file = folder / "ready.json"
    given = {
        "PATH": os.environ["PATH"],
        "TOWLINE_SERVER": address,
        "TOWLINE_AGENT_DIR": str(folder / "state"),
        "TOWLINE_AGENT_NAME": "tester",
        "TOWLINE_ENROLLMENT_TOKEN": "one-time",
        "TOWLINE_READY_FILE": str(ready_file),
        **environment,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "towline_agent", env=given, cwd=folder, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield AgentProcess(process, ready_file)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def plugin_offer(fake: FakeControlPlane, node: str, script: bytes) -> Offer:
    data = bundle(file("plugin.toml", b""), file("run", script, 0o755))
    fake.plugins[digest_of(data)] = data
    offer = make_offer(node, digest=digest_of(data))
    offer.plugin.entry_point = "run"
    return offer


def test_an_agent_enrolls_works_and_ends_cleanly(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with serve(fake) as (address, _), agent_process(tmp_path, address) as agent:
            assert await agent.ready() == "id-of-tester"
            fake.offer(plugin_offer(fake, "shout", SHOUT))
            await fake.until(lambda: fake.results and fake.logs and fake.logs["shout"].final)
            result = fake.results["shout"]
            assert (result.outcome, json.loads(result.output_json)) == (AttemptResult.SUCCEEDED, {"text": "HELLO"})
            assert fake.logs["shout"].data.endswith(b"O- hello\n")
            agent.process.send_signal(signal.SIGTERM)
            code, errors = await agent.ended()
            assert code == ExitCode.OK
            assert "secret" not in errors
            assert all(json.loads(line) for line in errors.splitlines() if line.startswith("{"))
            assert [request.token for request in fake.enrollments] == ["one-time"]

    run(scenario)


def test_a_second_start_keeps_the_identity_and_needs_no_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with serve(fake) as (address, _):
            for token in ("one-time", ""):
                (tmp_path / "ready.json").unlink(missing_ok=True)
                async with agent_process(tmp_path, address, TOWLINE_ENROLLMENT_TOKEN=token) as agent:
                    assert await agent.ready() == "id-of-tester"
                    agent.process.send_signal(signal.SIGINT)
                    assert (await agent.ended())[0] == ExitCode.OK
            assert len(fake.enrollments) == 1

    run(scenario)


def test_a_second_signal_hands_back_what_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with serve(fake) as (address, _), agent_process(tmp_path, address) as agent:
            fake.offer(plugin_offer(fake, "sleeper", SLEEPER))
            await fake.until(lambda: fake.logs)
            agent.process.send_signal(signal.SIGTERM)
            await fake.until(lambda: fake.pulls)
            assert agent.process.stderr is not None
            while b"draining" not in await agent.process.stderr.readline():
                pass
            agent.process.send_signal(signal.SIGTERM)
            assert (await agent.ended())[0] == ExitCode.STOPPED_AT_ONCE
            assert fake.results["sleeper"].outcome == AttemptResult.LOST

    run(scenario)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SessionReplaced("x"), ExitCode.SESSION_REPLACED),
        (CredentialRefused("x"), ExitCode.CREDENTIAL_REFUSED),
        (AgentUnsupported("x"), ExitCode.CONFIGURATION),
    ],
)
def test_an_agent_that_lost_its_place_says_so(tmp_path: Path, error: ControlPlaneError, code: ExitCode) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with serve(fake) as (address, _), agent_process(tmp_path, address) as agent:
            fake.errors["sync"] = deque([error])
            ended, errors = await agent.ended()
            assert (ended, "agent_ended" in errors) == (code, True)

    run(scenario)


def test_an_agent_without_a_token_says_what_it_needs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_process(tmp_path, "127.0.0.1:1", TOWLINE_ENROLLMENT_TOKEN="") as agent:
            code, errors = await agent.ended()
            assert code == ExitCode.CREDENTIAL_REFUSED
            assert "TOWLINE_ENROLLMENT_TOKEN_FILE" in errors

    run(scenario)


def test_two_agents_do_not_share_a_state_folder(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serve(FakeControlPlane()) as (address, _), agent_process(tmp_path, address) as first:
            await first.ready()
            async with agent_process(tmp_path, address) as second:
                code, errors = await second.ended()
                assert code == ExitCode.CONFIGURATION
                assert "another agent" in errors

    run(scenario)


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with agent_process(tmp_path, "127.0.0.1:1", TOWLINE_AGENT_SLOTS="many") as agent:
            code, errors = await agent.ended()
            assert (code, "TOWLINE_AGENT_SLOTS" in errors) == (ExitCode.CONFIGURATION, True)

    run(scenario)
