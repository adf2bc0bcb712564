"""Python entry points: what a function is given, and what becomes of what it does."""

import json
from pathlib import Path
from typing import Any

import pytest
from supervisor_scenario import Stage, play

from towline_agent.execution import EndReason

REQUEST = {"config": {"a": 1}, "inputs": {"first": [2]}, "input": None, "context": {"attempt": 3}}


def error_of(result: bytes) -> dict[str, Any]:
    document = json.loads(result)
    assert list(document) == ["error"]
    return document["error"]


@pytest.mark.parametrize(
    ("signature", "given"),
    [
        ("", {}),
        ("config", {"config": {"a": 1}}),
        ("context, inputs", {"inputs": {"first": [2]}, "context": {"attempt": 3}}),
        ("input, other=4", {"input": None, "other": 4}),
        ("*, config", {"config": {"a": 1}}),
        ("**everything", {"everything": REQUEST}),
    ],
)
def test_function_gets_the_arguments_that_it_declares(tmp_path: Path, signature: str, given: dict[str, Any]) -> None:
    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.python(f"def run({signature}):\n    return locals()", REQUEST))
        assert (json.loads(ended.result), ended.exit_code, output.stderr) == (given, 0, "")

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "exit_code", "error"),
    [
        (
            "raise TransientError('busy')",
            75,
            {"class": "TRANSIENT", "code": "PLUGIN_ERROR", "message": "busy"},
        ),
        (
            "raise TransientError('busy', code='BUSY', retry_after_ms=250)",
            75,
            {"class": "TRANSIENT", "code": "BUSY", "message": "busy", "retryAfterMs": 250},
        ),
        ("raise PermanentError('no', code='NO')", 1, {"class": "PERMANENT", "code": "NO", "message": "no"}),
        (
            "raise KeyError('name')",
            1,
            {"class": "PERMANENT", "code": "PLUGIN_ERROR", "message": "KeyError: 'name'"},
        ),
        (
            "raise KeyboardInterrupt",
            1,
            {"class": "PERMANENT", "code": "PLUGIN_ERROR", "message": "KeyboardInterrupt"},
        ),
    ],
)
def test_exception_becomes_the_error_of_the_attempt(
    tmp_path: Path, body: str, exit_code: int, error: dict[str, Any]
) -> None:
    code = f"from towline_sdk.plugin import PermanentError, TransientError\ndef run():\n    {body}"

    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.python(code))
        assert (error_of(ended.result), ended.exit_code) == (error, exit_code)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "output",
    ["float('nan')", "[float('inf')]", "{1, 2}", "object()", "'\\ud800'", "(a := [], a.append(a))[0]", "{(): 1}"],
)
def test_output_that_is_not_json_is_invalid(tmp_path: Path, output: str) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.python(f"def run():\n    return {output}"))
        error = error_of(ended.result)
        assert (error["class"], error["code"], ended.exit_code) == ("PERMANENT", "INVALID_OUTPUT", 1)

    play(tmp_path, scenario)


def test_traceback_begins_in_the_plugin(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        _, output = await stage.run(stage.python("def run():\n    print('before')\n    return 1 / 0"))
        assert output.stdout == "before\n"
        assert output.stderr.startswith("Traceback")
        assert "return 1 / 0" in output.stderr
        assert "ZeroDivisionError: division by zero" in output.stderr
        assert "harness.py" not in output.stderr

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("statement", "exit_code", "stderr"),
    [("sys.exit()", 0, ""), ("sys.exit(75)", 75, ""), ("sys.exit('why')", 1, "why\n"), ("os._exit(9)", 9, "")],
)
def test_exit_of_the_interpreter_is_honoured(tmp_path: Path, statement: str, exit_code: int, stderr: str) -> None:
    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.python(f"import os, sys\ndef run():\n    {statement}"))
        assert (ended.exit_code, ended.result, output.stderr) == (exit_code, b"", stderr)

    play(tmp_path, scenario)


def test_missing_module_and_function_are_named(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        folder = stage.bundle({"plugin.py": ""})
        for entry_point, name in (("python:absent:run", "absent"), ("python:plugin:gone", "gone")):
            ended, _ = await stage.run(stage.launch(entry_point, plugin_dir=folder))
            error = error_of(ended.result)
            assert error["code"] == "PLUGIN_ERROR"
            assert name in error["message"]

    play(tmp_path, scenario)


def test_printed_lines_come_while_the_plugin_runs(tmp_path: Path) -> None:
    code = """
import sys, time
def run():
    print("\\udcff", file=sys.stderr)
    print("ready")
    time.sleep(1000)
"""

    async def scenario(stage: Stage) -> None:
        launch = stage.python(code)
        running, output = stage.begin(launch)
        assert await output.lines(1) == ["ready"]
        stage.supervisor.stop(launch.key)
        await running
        assert output.stderr == "\\udcff\n"

    play(tmp_path, scenario)


def test_bundle_wins_over_modules_that_the_supervisor_holds(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        code = "import json, psutil, queue\ndef run():\n    return [queue.MINE, psutil.MINE, json.dumps(1)]"
        folder = stage.bundle({"token.py": code, "queue.py": "MINE = 1", "psutil.py": "MINE = 2"})
        ended, _ = await stage.run(stage.launch("python:token:run", plugin_dir=folder))
        assert json.loads(ended.result) == [1, 2, "1"]

    play(tmp_path, scenario)


def test_attempts_share_nothing(tmp_path: Path) -> None:
    code = """
import json, random, sys
def run():
    json.touched = getattr(json, "touched", 0) + 1
    return [json.touched, random.random(), sys.argv]
"""

    async def scenario(stage: Stage) -> None:
        seen = [json.loads((await stage.run(stage.python(code)))[0].result) for _ in range(3)]
        assert [touched for touched, _, _ in seen] == [1, 1, 1]
        assert len({chance for _, chance, _ in seen}) == 3
        assert seen[0][2] == ["python:plugin:run"]

    play(tmp_path, scenario)


def test_plugin_may_use_processes_and_threads_of_its_own(tmp_path: Path) -> None:
    code = """
import multiprocessing, subprocess, threading
def run():
    with multiprocessing.Pool(2) as pool:
        squares = pool.map(abs, [-1, -2])
    thread = threading.Thread(target=squares.append, args=(3,))
    thread.start()
    thread.join()
    return squares + [subprocess.run(["echo", "4"], capture_output=True, text=True).stdout]
"""

    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.python(code, environment={"PATH": "/usr/bin:/bin"}))
        assert (json.loads(ended.result), output.stderr) == ([1, 2, 3, "4\n"], "")

    play(tmp_path, scenario)


def test_bundle_is_not_written_to(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        folder = stage.bundle({"plugin.py": "import other\ndef run(): pass", "other.py": ""})
        ended, _ = await stage.run(stage.launch("python:plugin:run", plugin_dir=folder))
        assert ended.exit_code == 0
        assert sorted(path.name for path in folder.iterdir()) == ["other.py", "plugin.py"]

    play(tmp_path, scenario)


def test_result_that_cannot_be_written_is_no_success(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.python("import os\ndef run():\n    os.close(3)\n    return 1"))
        assert (ended.reason, ended.exit_code) == (EndReason.EXITED, 1)
        assert "result" in output.stderr

    play(tmp_path, scenario)
