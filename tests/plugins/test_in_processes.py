"""Built-ins as agents run them: warm forks, real shells, failures as the agent hears of them."""

import json
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from supervisor_scenario import Stage, play

from towline_agent.execution import EndReason, Exit
from towline_plugins.catalog import BUILTINS

PACKAGES = ("towline_plugins",)


async def run(stage: Stage, name: str, config: dict[str, Any], **environment: str) -> tuple[Exit, Any, str, str]:
    stdin = json.dumps({"config": config, "inputs": {}, "input": {}, "context": {}}).encode()
    launch = stage.launch(BUILTINS[name].entry_point, stdin=stdin, environment={"PATH": "/usr/bin:/bin", **environment})
    ended, output = await stage.run(launch)
    return ended, json.loads(ended.result or b"null"), output.stdout, output.stderr


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("TEXT_TRANSFORM", {"transform": "reverse", "text": "abc"}, {"text": "cba"}),
        ("JSON_TRANSFORM", {"expression": "[1, 2].map(i, i * 2)"}, {"value": [2, 4]}),
        ("DELAY", {"seconds": 0}, {"seconds": 0}),
        ("PYTHON", {"code": "def main(config, inputs):\n    return {'a': 1}"}, {"a": 1}),
        ("SHELL", {"command": "echo hi"}, {"exitCode": 0, "stdout": "hi\n"}),
    ],
)
def test_builtin_runs_in_a_fork(tmp_path: Path, name: str, config: dict[str, Any], expected: object) -> None:
    async def scenario(stage: Stage) -> None:
        ended, result, _, stderr = await run(stage, name, config)
        assert (ended.reason, ended.exit_code, stderr) == (EndReason.EXITED, 0, "")
        assert result == expected
        jsonschema.validate(result, BUILTINS[name].output_schema)

    play(tmp_path, scenario, PACKAGES)


def test_shell_output_is_log_and_result(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        config = {
            "command": "echo $COLOUR $SHAPE; echo oops >&2; cat; env | grep -c RESULT_FD",
            "env": {"SHAPE": "round"},
        }
        ended, result, stdout, stderr = await run(stage, "SHELL", config, COLOUR="blue")
        assert ended.exit_code == 1  # grep found nothing, and it was the last command
        assert result["error"]["code"] == "EXIT_CODE"
        assert (stdout, stderr) == ("blue round\n0\n", "oops\n")

    play(tmp_path, scenario, PACKAGES)


@pytest.mark.parametrize(
    ("name", "config", "printed"),
    [
        ("SHELL", {"command": "cat <&$TOWLINE_SECRETS_FD; cat /dev/fd/$TOWLINE_SECRETS_FD"}, 2),
        ("SHELL", {"command": "env; tr '\\0' '\\n' </proc/$$/cmdline; ls /proc/self/fd"}, 0),
        ("PYTHON", {"code": "def main(config, inputs, secrets):\n    print(secrets)\n    return {}"}, 1),
        (
            "PYTHON",
            {"code": "from towline_sdk import plugin\ndef main(*_):\n    print(plugin.secrets())\n    return {}"},
            1,
        ),
    ],
)
def test_builtins_are_given_secrets(tmp_path: Path, name: str, config: dict[str, Any], printed: int) -> None:
    async def scenario(stage: Stage) -> None:
        stdin = json.dumps({"config": config, "inputs": {}, "input": None, "context": {}}).encode()
        entry_point, secrets = BUILTINS[name].entry_point, json.dumps({"TOKEN": "planted value"}).encode()
        ended, output = await stage.run(stage.launch(entry_point, stdin=stdin, secrets=secrets))
        assert (ended.exit_code, output.stderr) == (0, "")
        assert output.stdout.count("planted value") == printed

    play(tmp_path, scenario, PACKAGES)


def test_shell_keeps_a_bounded_part_of_its_output(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        _, result, stdout, _ = await run(stage, "SHELL", {"command": "head -c 262145 /dev/zero | tr '\\0' x"})
        assert len(stdout) == 262_145
        assert (len(result["stdout"]), result["truncated"]) == (262_144, True)
        _, result, _, _ = await run(stage, "SHELL", {"command": "head -c 262144 /dev/zero | tr '\\0' x"})
        assert len(result["stdout"]) == 262_144
        assert "truncated" not in result

    play(tmp_path, scenario, PACKAGES)


@pytest.mark.parametrize("background", ["sleep 1000 &", "yes &"])
def test_shell_does_not_wait_for_background_commands(tmp_path: Path, background: str) -> None:
    async def scenario(stage: Stage) -> None:
        ended, result, stdout, _ = await run(stage, "SHELL", {"command": f"{background} echo $$ done"})
        assert (ended.reason, ended.exit_code) == (EndReason.EXITED, 0)
        assert "done" in stdout
        assert result["exitCode"] == 0

    play(tmp_path, scenario, PACKAGES)


def test_shell_that_closed_its_output_is_waited_for(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _, _, _ = await run(stage, "SHELL", {"command": "exec >&-; sleep 0.2; exit 3"})
        assert ended.exit_code == 1

    play(tmp_path, scenario, PACKAGES)


def test_shell_command_is_given_time_to_say_goodbye(tmp_path: Path) -> None:
    script = "trap 'sleep 0.1; echo bye; exit 3' TERM; while :; do sleep 0.05; done"

    async def scenario(stage: Stage) -> None:
        stdin = json.dumps({"config": {"command": script}, "inputs": {}, "input": None, "context": {}}).encode()
        ended, output = await stage.run(stage.launch(BUILTINS["SHELL"].entry_point, stdin=stdin, timeout_seconds=0.5))
        assert ended.reason is EndReason.TIMEOUT
        assert output.stdout == "bye\n"

    play(tmp_path, scenario, PACKAGES)


@pytest.mark.parametrize(("exit_code", "failure_class", "own_code"), [(75, "TRANSIENT", 75), (2, "PERMANENT", 1)])
def test_shell_exit_code_decides_the_class(tmp_path: Path, exit_code: int, failure_class: str, own_code: int) -> None:
    async def scenario(stage: Stage) -> None:
        ended, result, _, _ = await run(stage, "SHELL", {"command": f"exit {exit_code}"})
        assert ended.exit_code == own_code
        assert result["error"]["class"] == failure_class
        assert str(exit_code) in result["error"]["message"]

    play(tmp_path, scenario, PACKAGES)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGPIPE, signal.SIGINT, 40])
def test_shell_ended_by_a_signal_ends_the_attempt_by_it(tmp_path: Path, number: int) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _, _, _ = await run(stage, "SHELL", {"command": f"kill -{int(number)} $$"})
        assert (ended.reason, ended.signal) == (EndReason.SIGNALED, number)

    play(tmp_path, scenario, PACKAGES)


def test_python_traceback_shows_the_line_of_the_code(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        code = "def main(config, inputs):\n    return {'a': missing}"
        _, result, _, stderr = await run(stage, "PYTHON", {"code": code})
        assert result["error"]["message"] == "NameError: name 'missing' is not defined"
        assert "return {'a': missing}" in stderr

    play(tmp_path, scenario, PACKAGES)
