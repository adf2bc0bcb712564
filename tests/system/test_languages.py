"""Plugins in other languages than Python: each conforms, and one workflow runs them all on real processes."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import Rest, installed

from towline_sdk.bundle import pack
from towline_sdk.testing import plugin_checks

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "languages"
TOOLS = {"checksum": "go", "frame": "jq", "slug": "node"}


def ready_made(name: str, folder: Path) -> Path:
    """A copy of an example's plugin, built if it is to be; without its tools the test is skipped."""
    if shutil.which(TOOLS[name]) is None:
        pytest.skip(f"NO {TOOLS[name]}, so nothing is known of the plugin {name}")
    plugin = Path(shutil.copytree(EXAMPLE / "plugins" / name, folder / name))
    if (plugin / "build.sh").exists():
        subprocess.run([plugin / "build.sh"], check=True)
    return plugin


@pytest.mark.parametrize("name", TOOLS)
def test_a_plugin_conforms(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checks = plugin_checks(ready_made(name, tmp_path))
    assert len(checks) == 6
    assert {check.name: check.problem() for check in checks} == {check.name: None for check in checks}


def test_a_program_is_built_to_the_same_bytes(tmp_path: Path) -> None:
    first, second = ready_made("checksum", tmp_path / "a"), ready_made("checksum", tmp_path / "b")
    assert pack(first).digest == pack(second).digest


def push(plugin: Path, server: str, token: str, folder: Path) -> None:
    told = {"TOWLINE_SERVER": server, "TOWLINE_TOKEN": token, "TOWLINE_CONFIG_DIR": str(folder / "config")}
    command = [sys.executable, "-P", "-m", "towline_cli", "plugin", "push", str(plugin)]
    subprocess.run(command, env={**os.environ, **told}, check=True, capture_output=True)


def test_a_workflow_runs_all_of_them(tmp_path: Path) -> None:
    plugins = [ready_made(name, tmp_path / "plugins") for name in TOOLS]
    workflow, given, expected = (
        json.loads((EXAMPLE / f"{name}.json").read_bytes()) for name in ("workflow", "input", "expected")
    )

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            for plugin in plugins:
                await asyncio.to_thread(push, plugin, installation.grpc, rest.token, tmp_path)
            made = rest.post("/workflows", workflow)
            run = rest.post(f"/workflows/{made['id']}/execute", {"input": given})
            await asyncio.to_thread(lambda: list(rest.events(run["id"])))
            assert rest.get(f"/runs/{run['id']}")["output"] == expected["output"]
            steps: list[dict[str, Any]] = rest.get(f"/runs/{run['id']}/steps")["steps"]
            assert {step["nodeId"]: step["state"] for step in steps} == dict.fromkeys(expected["steps"], "SUCCEEDED")
            lines = {data["text"] for name, data in rest.stream(f"/runs/{run['id']}/logs") if name != "end"}
            assert "14 bytes, attempt 1" in lines

    asyncio.run(scenario())
