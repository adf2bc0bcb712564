"""A worker host gets the agent and little else; what it gets works alone."""

import asyncio
import os
import subprocess
from pathlib import Path

import minimal_install
import pytest
from minimal_install import Environment
from processes import PATIENCE_SECONDS, installed
from test_agent_faults import begin, seen

from towline_cli.child import Child, ChildSpec

DISTRIBUTIONS = {
    "annotated-types",
    "googleapis-common-protos",
    "grpcio",
    "protobuf",
    "psutil",
    "pydantic",
    "pydantic-core",
    "pydantic-settings",
    "python-dotenv",
    "structlog",
    "typing-extensions",
    "typing-inspection",
}
"""All that `towline[agent]` brings; each more is paid for on every worker host, and named in docs/install.md."""
MOST_MEGABYTES = 40
NODES = [
    {"id": "shell", "type": "SHELL", "config": {"command": "echo hello"}},
    {"id": "text", "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase", "text": "hello"}},
    {"id": "python", "type": "PYTHON", "config": {"code": "def main(config, inputs):\n    return {'x': 1}"}},
]
LACKING = {"id": "json", "type": "JSON_TRANSFORM", "config": {"expression": "1 + 1"}}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return minimal_install.make(tmp_path_factory.mktemp("host"), "agent")


def towline(host: Environment, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [host.program("towline"), *arguments],
        input=stdin,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_agent_host_gets_few_and_light_packages(host: Environment) -> None:
    assert host.required == DISTRIBUTIONS
    assert host.megabytes < MOST_MEGABYTES
    documented = (minimal_install.ROOT / "docs" / "install.md").read_text()
    assert all(f"`{name}`" in documented for name in DISTRIBUTIONS)


def test_what_needs_more_says_what(host: Environment) -> None:
    for arguments in ((), ("run", "list"), ("--help",), ("agent", "list")):
        refused = towline(host, *arguments)
        assert refused.returncode != 0
        assert "towline[cli]" in refused.stderr
        assert "towline agent run, towline agent enroll" in refused.stderr
        assert refused.stderr.count("\n") == 1
    printed = towline(host, "agent", "install-service", "--print")
    assert host.program("python") in printed.stdout, printed.stderr


def test_a_host_enrolls_and_works_with_nothing_else(host: Environment, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            state = tmp_path / "state"
            enrolled = await asyncio.to_thread(
                towline,
                host,
                *("agent", "enroll", "--server", installation.grpc, "--name", "worker", "--state-dir", str(state)),
                stdin=(tmp_path / "enrollment-token").read_text(),
            )
            assert enrolled.returncode == 0, enrolled.stderr
            command = (host.program("towline"), "agent", "run", "--state-dir", str(state))
            worker = Child(ChildSpec("worker", command, tmp_path / "worker.ready", tmp_path / "worker.log"))
            await worker.start({"PATH": os.environ["PATH"]}, PATIENCE_SECONDS)
            try:
                _, _, events = await asyncio.to_thread(begin, installation, NODES)
                await seen(events, "RUN_SUCCEEDED")
                rest, run_id, _ = await asyncio.to_thread(begin, installation, [LACKING])
                summary = (await asyncio.to_thread(rest.get, f"/runs/{run_id}/steps/json/explain"))["summary"]
                assert "worker has not installed what JSON_TRANSFORM needs" in summary
                await asyncio.to_thread(rest.post, f"/runs/{run_id}/cancel")
            finally:
                assert await worker.stop(PATIENCE_SECONDS)

    asyncio.run(scenario())
