"""What a plugin's author types, on a machine without any server: init, run, test."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from towline_sdk import scaffold
from towline_sdk.errors import InvalidArgumentError
from towline_sdk.testing import NotConforming, plugin_checks

TOOLS = {"python": (), "bash": ("bash", "jq"), "node": ("node",), "go": ("go",)}


def needs(language: str) -> None:
    missing = [tool for tool in TOOLS[language] if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"NO {', '.join(missing)}, so nothing is known of plugins in {language}")


def towline(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "towline_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("language", scaffold.LANGUAGES)
def test_a_template_passes_its_own_test(language: str, tmp_path: Path) -> None:
    needs(language)
    folder = tmp_path / "my-plugin"
    made = towline("plugin", "init", "my-plugin", "--language", language, "--dir", str(folder))
    assert made.returncode == 0, made.stderr
    assert set(made.stdout.split()) == {str(path) for path in folder.rglob("*") if path.is_file()}
    if language == "go":
        subprocess.run([folder / "build.sh"], check=True)
    tested = towline("plugin", "test", str(folder), "--output", "json")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert {each["check"]: each["problem"] for each in json.loads(tested.stdout)} == {
        "manifest": None,
        "schemas": None,
        "schemas say what the types say": None,
        "packs alike anywhere": None,
        "tests/greets.json": None,
        "tests/refuses.json": None,
    }


def test_a_template_never_overwrites(plugin: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="there already"):
        scaffold.create(plugin, "greeter", "python")
    with pytest.raises(InvalidArgumentError, match="name"):
        scaffold.create(tmp_path / "new", "1st", "python")
    assert not (tmp_path / "new").exists()


def test_a_run_shows_the_log_and_prints_the_output(plugin: Path) -> None:
    done = towline("plugin", "run", str(plugin), "--config", '{"who": "you"}')
    assert (done.returncode, json.loads(done.stdout)) == (0, {"greeting": "Hello, you!"})
    assert done.stderr.splitlines()[-1] == "greeting you"


def test_a_run_takes_what_a_step_is_given(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
    from towline_sdk.plugin import secrets

    def run(config, inputs, input, context):
        return [config, inputs, input, context["nodeId"], sorted(secrets())]
    """
    write(plugin, code)
    manifest = (plugin / "plugin.toml").read_text()
    (plugin / "plugin.toml").write_text(manifest.replace("[permissions]", '[permissions]\nsecrets = ["API_KEY"]'))
    (tmp_path / "config.json").write_text('{"who": "x"}')
    monkeypatch.setenv("API_KEY", "value of the key")
    options = ["--config", f"@{tmp_path / 'config.json'}", "--inputs", '{"a": 1}', "--input", "[2]"]
    done = towline("plugin", "run", str(plugin), *options, "--secret", "API_KEY")
    assert json.loads(done.stdout) == [{"who": "x"}, {"a": 1}, [2], "greeter", ["API_KEY"]], done.stderr


def write(plugin: Path, code: str) -> None:
    lines = code.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    (plugin / "plugin.py").write_text("\n".join(line[indent:] for line in lines) + "\n")


FAILURES: dict[str, tuple[str, int, str]] = {
    "permanent": ("def run():\n    raise ValueError('no')", 1, "FAILED PERMANENT PLUGIN_ERROR: ValueError: no"),
    "transient": (
        "def run():\n    raise SystemExit(75)",
        75,
        "FAILED TRANSIENT EXIT_CODE: The plugin asked for a retry",
    ),
    "timeout": ("def run():\n    while True: pass", 75, "TIMED_OUT TRANSIENT TIMEOUT: Did not end within 0.5 s"),
    "no json": ("def run():\n    return {1, 2}", 1, "FAILED PERMANENT INVALID_OUTPUT"),
}


@pytest.mark.parametrize(("code", "exit_code", "said"), FAILURES.values(), ids=FAILURES.keys())
def test_a_run_that_fails_says_why(plugin: Path, code: str, exit_code: int, said: str) -> None:
    write(plugin, code)
    done = towline("plugin", "run", str(plugin), "--timeout-ms", "500")
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert said in done.stderr


WRONG: dict[str, tuple[list[str], str]] = {
    "no json": (["--config", "{"], "--config"),
    "no object": (["--config", "[]"], "--config must be a JSON object"),
    "no file": (["--input", "@/none"], "--input"),
    "not listed": (["--secret", "PATH"], "does not list it"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_option_is_named(plugin: Path, options: list[str], said: str) -> None:
    done = towline("plugin", "run", str(plugin), *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_what_is_no_plugin_is_not_run(plugin: Path) -> None:
    (plugin / "plugin.py").unlink()
    done = towline("plugin", "run", str(plugin))
    assert done.returncode == 2
    assert "entry_point" in done.stderr


def case(plugin: Path, **document: Any) -> None:
    (plugin / "tests" / "greets.json").write_text(json.dumps(document))


def no_manifest(plugin: Path) -> None:
    (plugin / "plugin.toml").write_text("name = 1")


def wrong_schema(plugin: Path) -> None:
    text = (plugin / "plugin.toml").read_text()
    (plugin / "plugin.toml").write_text(text.replace('type = "string"', 'type = "strnig"'))


def no_cases(plugin: Path) -> None:
    shutil.rmtree(plugin / "tests")


def leaves_processes(plugin: Path) -> None:
    text = (plugin / "plugin.py").read_text()
    (plugin / "plugin.py").write_text(
        text.replace("    return ", '    import subprocess\n\n    subprocess.Popen(["sleep", "1000"])\n    return ')
    )


def wrong_output_schema(plugin: Path) -> None:
    (plugin / "plugin.toml").write_text((plugin / "plugin.toml").read_text() + "maxLength = 3\n")


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "manifest": (no_manifest, "manifest", "name must be"),
    "schema": (wrong_schema, "schemas", "strnig"),
    "stale schema": (wrong_schema, "schemas say what the types say", "towline plugin schema"),
    "no cases": (no_cases, "cases", "no case"),
    "stray process": (leaves_processes, "tests/greets.json", "1 processes outlived"),
    "output schema": (wrong_output_schema, "tests/greets.json", "output.greeting"),
    "other output": (
        lambda plugin: case(plugin, config={"who": "you"}, expect={"output": {}}),
        "tests/greets.json",
        "expected {}",
    ),
    "config": (
        lambda plugin: case(plugin, config={}, expect={"output": {}}),
        "tests/greets.json",
        "'who' is a required",
    ),
    "not failed": (
        lambda plugin: case(plugin, config={"who": "you"}, expect={"failure": {"code": "X"}}),
        "tests/greets.json",
        "it succeeded",
    ),
    "other failure": (
        lambda plugin: case(plugin, config={"who": "nobody"}, expect={"failure": {"code": "X"}}),
        "tests/greets.json",
        "the failure's code is 'NOBODY_THERE', expected 'X'",
    ),
    "no expectation": (lambda plugin: case(plugin, config={}), "tests/greets.json", "expect"),
    "unknown field": (
        lambda plugin: case(plugin, konfig={}, expect={"output": 1}),
        "tests/greets.json",
        "may hold",
    ),
}


@pytest.mark.parametrize(("break_it", "name", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_what_does_not_conform_is_found(plugin: Path, break_it: Callable[[Path], None], name: str, said: str) -> None:
    break_it(plugin)
    [check] = [each for each in plugin_checks(plugin) if each.name == name]
    with pytest.raises(NotConforming) as caught:
        check()
    assert said in str(caught.value)


def test_the_command_says_what_failed_and_exits_so(plugin: Path) -> None:
    case(plugin, config={"who": "you"}, expect={"output": {}})
    done = towline("plugin", "test", str(plugin))
    assert done.returncode == 1
    assert "FAIL tests/greets.json: the output is" in done.stdout
    assert "ok   manifest" in done.stdout


@pytest.mark.parametrize(
    "check", plugin_checks(Path(__file__).parents[2] / "examples/log-analysis/plugins/latency-profile")[:3], ids=str
)
def test_checks_are_parameters_of_pytest(check: Callable[[], None]) -> None:
    check()
