import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_fakes import Terminal

from towline_cli import processes
from towline_sdk.bundle import pack
from towline_sdk.documents import parse_json, parse_value, parse_workflow
from towline_sdk.errors import TowlineError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("text-transform", "log-analysis", "word-count", "report")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["rich>=15", "nowhere-to-be-found>=1 ; extra == 'agent'", 'pytest>=9; extra == "gateway"']

    def requires(_: str) -> list[str]:
        return requirements

    monkeypatch.setattr(processes.metadata, "requires", requires)

    processes.require("gateway")
    with pytest.raises(TowlineError, match=r"needs nowhere-to-be-found: .*'towline\[agent\]'"):
        processes.require("agent")


@pytest.mark.parametrize("part", ["controlplane", "gateway", "agent"])
def test_requirements_of_each_part_are_installed(part: str) -> None:
    processes.require(part)


@pytest.mark.parametrize(
    ("command", "module", "setting"),
    [
        ("controlplane", "towline_controlplane", None),
        ("gateway", "towline_gateway", None),
        ("agent run --name m --slots 2", "towline_agent", None),
        ("agent enroll --server h:1 --help", "towline_agent.enroll", None),
        ("migrate --data-dir d -o json", "towline_controlplane.migrate", ("TOWLINE_DATA_DIR", "d")),
        ("admin audit --data-dir d -o json", "towline_controlplane.audit", ("TOWLINE_DATA_DIR", "d")),
    ],
)
def test_process_command_becomes_its_process(
    command: str,
    module: str,
    setting: tuple[str, str] | None,
    towline: Terminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executed: list[tuple[str, tuple[str, ...], dict[str, str]]] = []

    def execve(program: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        executed.append((program, arguments, environment))

    monkeypatch.setattr(os, "execve", execve)

    assert towline(*command.split()).code == 0

    ((program, arguments, environment),) = executed
    assert (program, arguments[:4]) == (sys.executable, (sys.executable, "-P", "-m", module))
    of_the_agent = command.split()[2:] if command.startswith("agent") else []
    assert arguments[4:] == (("--output", "json") if "json" in command else tuple(of_the_agent))
    assert setting is None or setting in environment.items()
    assert "TOWLINE_ENROLLMENT_TOKEN_FILE" not in environment


def test_up_refuses_a_taken_folder_with_one_line(tmp_path: Path) -> None:
    with (tmp_path / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("123")
        lock.flush()
        command = [sys.executable, "-m", "towline_cli", "up", "--data-dir", str(tmp_path), "--http-port", "0"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 6
    assert result.stderr == f"error: {tmp_path} is in use by process 123: stop it, or choose another --data-dir\n"


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_well_formed(name: str) -> None:
    folder = ROOT / "examples" / name
    workflow = parse_workflow(parse_json((folder / "workflow.json").read_text(), name))
    parse_value(parse_json((folder / "input.json").read_text(), name), "input")
    bundles = {pack(file.parent).manifest.name for file in folder.glob("plugins/*/plugin.toml")}
    expected = json.loads((folder / "expected.json").read_text())

    assert workflow.name == name
    assert expected["steps"].keys() == {node.id for node in workflow.dag.nodes}
    assert bundles <= {node.type for node in workflow.dag.nodes}
