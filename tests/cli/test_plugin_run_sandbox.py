"""What a plugin's author learns of the sandbox: the level that an agent would give here, and what it refuses."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from sandbox_scenario import CONTAINS, IS_ROOT
from test_plugin_authoring import towline, write

from towline_agent.sandbox.levels import Level


def tried(plugin: Path, *options: str) -> dict[str, Any]:
    done = towline("plugin", "run", str(plugin), "--output", "json", *options)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def ask_for(plugin: Path, level: str) -> None:
    manifest = plugin / "plugin.toml"
    manifest.write_text(f'min_sandbox = "{level}"\n' + manifest.read_text())


WHO_AM_I = """
import os
from pathlib import Path
def run():
    return [os.geteuid(), Path("/proc/self/cgroup").read_text()]
"""


@pytest.mark.skipif(not CONTAINS, reason="this host or this user has no groups that limit memory and processes")
def test_a_run_as_root_is_contained_as_by_an_agent(plugin: Path) -> None:
    write(plugin, WHO_AM_I)
    found = tried(plugin, "--sandbox", "L4")
    uid, groups = found["output"]
    assert uid != os.geteuid()
    assert groups != Path("/proc/self/cgroup").read_text()
    assert found["sandbox"]["level"] == "L4"


def test_a_run_says_its_level_and_what_is_missing(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_AGENT_CGROUPS", "off")
    monkeypatch.setenv("TOWLINE_AGENT_SANDBOX", "L3")
    done = towline("plugin", "run", str(plugin), "--config", '{"who": "you"}')
    told, *missing, log = done.stderr.splitlines()
    assert told == "sandbox L3, memory is kept by looking"
    assert "  without memory_cgroup: the agent is set to L3 at most" in missing
    assert log == "greeting you"


@pytest.mark.parametrize("by", ["option", "plugin"])
def test_what_cannot_be_confined_enough_is_refused_with_what_is_lacking(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("TOWLINE_AGENT_CGROUPS", "off")
    write(plugin, "def run():\n    print('ran')")
    if by == "plugin":
        ask_for(plugin, "L4")
    done = towline("plugin", "run", str(plugin), *(["--sandbox", "L4"] if by == "option" else []))
    assert (done.returncode, done.stdout) == (1, "")
    assert "SANDBOX_UNAVAILABLE: The agent cannot confine the plugin as it must be" in done.stderr
    assert "L4 is asked for, and this agent's sandbox is L3: memory_cgroup: the agent is set to use no" in done.stderr
    assert "ran" not in done.stderr


def test_the_stricter_of_option_and_plugin_wins(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_AGENT_SANDBOX", "L3")
    ask_for(plugin, "L4")
    assert tried(plugin, "--sandbox", "L1")["failure"]["code"] == "SANDBOX_UNAVAILABLE"


SPILLING = """
import os, sys
from towline_sdk.plugin import PermanentError, secrets
def run(config):
    key = secrets()["API_KEY"]
    print("the key is", key)
    os.write(2, key[:8].encode())
    sys.stderr.flush()
    os.write(2, key[8:].encode() + b"\\n")
    if config["fail"]:
        raise PermanentError("refused with " + key)
    return {"key": key}
"""


@pytest.mark.parametrize("fail", [False, True])
def test_secrets_are_masked_in_log_output_and_failure(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, *, fail: bool
) -> None:
    write(plugin, SPILLING)
    manifest = (plugin / "plugin.toml").read_text()
    (plugin / "plugin.toml").write_text(manifest.replace("[permissions]", '[permissions]\nsecrets = ["API_KEY"]'))
    monkeypatch.setenv("API_KEY", "hunter2-hunter2-hunter2")
    config = json.dumps({"fail": fail})
    done = towline("plugin", "run", str(plugin), "--secret", "API_KEY", "--config", config, "--output", "json")
    assert "hunter2" not in done.stdout + done.stderr
    assert "the key is ***" in done.stderr
    found = json.loads(done.stdout)
    assert (found["failure"]["message"] if fail else found["output"]) == (
        "refused with ***" if fail else {"key": "***"}
    )


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user's plugins run as that user")
def test_a_run_is_refused_where_the_users_of_plugins_cannot_get(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_AGENT_SANDBOX", "L2")
    plugin.parent.chmod(0o700)
    done = towline("plugin", "run", str(plugin))
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot pass" in done.stderr
    assert "put both where everybody can pass" in done.stderr


def test_wrong_settings_are_named(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_AGENT_SANDBOX", "L9")
    done = towline("plugin", "run", str(plugin))
    assert done.returncode == 2
    assert "TOWLINE_AGENT_SANDBOX" in done.stderr


def test_levels_are_those_of_the_option(plugin: Path) -> None:
    done = towline("plugin", "run", str(plugin), "--sandbox", "L5")
    assert done.returncode == 2
    assert all(level.name in done.stderr for level in Level)
