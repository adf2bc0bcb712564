"""Secrets on their way to real plugin processes: where they are, and where they are not."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from supervisor_scenario import Stage, play

from towline_agent.execution import EndReason

SECRETS = {"TOKEN": "planted-token-é", "KEY": "planted\nkey"}
DOCUMENT = json.dumps(SECRETS).encode()
LARGE = json.dumps({"TOKEN": "x" * 900_000}).encode()


def test_a_python_plugin_gets_them_by_name_or_by_call(tmp_path: Path) -> None:
    code = """
import os
from towline_sdk import plugin

def run(config, secrets):
    return [secrets, plugin.secrets(), "TOWLINE_SECRETS_FD" in os.environ, sorted(os.listdir("/proc/self/fd"))]
"""

    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.python(code, secrets=DOCUMENT))
        assert (ended.reason, output.stderr) == (EndReason.EXITED, "")
        named, called, in_environment, descriptors = json.loads(ended.result)
        assert named == called == SECRETS
        assert not in_environment
        assert "5" not in descriptors

    play(tmp_path, scenario)


@pytest.mark.parametrize("signature", ["config", "**given"])
def test_a_plugin_that_names_no_parameter_for_them_is_not_passed_them(tmp_path: Path, signature: str) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.python(f"def run({signature}):\n    return repr(locals())", secrets=DOCUMENT))
        assert b"planted" not in ended.result

    play(tmp_path, scenario)


def test_a_plugin_without_secrets_gets_none(tmp_path: Path) -> None:
    code = "import os\ndef run(secrets):\n    return [secrets, 'TOWLINE_SECRETS_FD' in os.environ]"

    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.python(code))
        assert json.loads(ended.result) == [{}, False]
        ended, output = await stage.run(stage.shell("ls /proc/self/fd"))
        assert "5" not in output.stdout.split()

    play(tmp_path, scenario)


def test_an_executable_reads_its_descriptor_once(tmp_path: Path) -> None:
    script = "cat <&$TOWLINE_SECRETS_FD; echo; cat <&$TOWLINE_SECRETS_FD | wc -c"

    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.shell(script, secrets=DOCUMENT))
        first, second = output.stdout.splitlines()
        assert json.loads(first) == SECRETS
        assert second.strip() == "0"
        assert ended.exit_code == 0

    play(tmp_path, scenario)


def test_more_than_a_pipe_holds_arrives_too(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.python("def run(secrets):\n    return len(secrets['TOKEN'])", secrets=LARGE))
        assert json.loads(ended.result) == 900_000

    play(tmp_path, scenario)


def test_what_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        before = len(os.listdir("/proc/self/fd"))
        ended, _ = await stage.run(stage.shell("exit 0", secrets=LARGE))
        assert ended.exit_code == 0
        assert len(os.listdir("/proc/self/fd")) == before

    play(tmp_path, scenario)


def test_neither_environment_nor_arguments_nor_a_core_holds_them(tmp_path: Path) -> None:
    script = "cat /proc/self/environ /proc/$$/environ /proc/self/cmdline /proc/$$/cmdline | tr '\\0' '\\n'; ulimit -c"

    async def scenario(stage: Stage) -> None:
        _, output = await stage.run(stage.shell(script, secrets=DOCUMENT))
        assert "TOWLINE_SECRETS_FD=5" in output.stdout
        assert "planted" not in output.stdout
        assert output.stdout.splitlines()[-1] == "0"

    play(tmp_path, scenario)


def test_a_launch_does_not_show_them(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        launch: Any = stage.shell("exit", secrets=DOCUMENT)
        assert "planted" not in repr(launch)

    play(tmp_path, scenario)
