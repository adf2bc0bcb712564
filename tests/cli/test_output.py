"""How results are printed: ids, YAML, colours; and what shells complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cli_fakes import FakeControlPlane, Terminal

from towline.v1 import run_service_pb2, workflow_service_pb2
from towline.v1.run_pb2 import Event, LogLine, Run, Step
from towline.v1.workflow_pb2 import Workflow
from towline_cli.exit_codes import EXPLAINED, ExitCode

DOCS = Path(__file__).parents[2] / "docs"
WORKFLOWS = workflow_service_pb2.ListWorkflowsResponse(
    workflows=[Workflow(id="w1", name="no"), Workflow(id="w2", name="b: c")], next_page_token="n"
)


@pytest.fixture(autouse=True)
def answers(control_plane: FakeControlPlane) -> None:
    run = Run(id="r1", state="SUCCEEDED")
    event = run_service_pb2.WatchRunResponse(event=Event(sequence=1, type="RUN_SUCCEEDED"), cursor="1")
    line = run_service_pb2.TailLogsResponse(line=LogLine(node_id="a", attempt=1, text="hello"), cursor="1")
    control_plane.answers |= {
        "ListWorkflows": lambda _: WORKFLOWS,
        "StartRun": lambda _: run_service_pb2.StartRunResponse(run=run),
        "GetRun": lambda _: run_service_pb2.GetRunResponse(run=run),
        "ListSteps": lambda _: run_service_pb2.ListStepsResponse(steps=[Step(node_id="a"), Step(node_id="b")]),
        "WatchRun": lambda _: [event, event],
        "TailLogs": lambda _: [line, line],
    }


# What is typed, and all that is printed.
QUIET = [
    ("workflow list -q", "w1\nw2\n"),
    ("workflow list -o id", "w1\nw2\n"),
    ("run start w1 --quiet", "r1\n"),
    ("run start w1 -wq", "r1\n"),
    ("run watch r1 -q", ""),
    ("run steps r1 -q", "a\nb\n"),
    ("workflow delete w1 -q", ""),
]


@pytest.mark.parametrize(("command", "printed"), QUIET, ids=[command for command, _ in QUIET])
def test_quiet_prints_ids_only(command: str, printed: str, towline: Terminal) -> None:
    result = towline(*command.split())
    assert (result.code, result.stdout) == (0, printed)


def test_every_command_with_an_output_can_be_quiet(towline: Terminal) -> None:
    for command in ("workflow create", "run start", "secret list", "context list", "whoami", "agent token"):
        said = towline(*command.split(), "--help").stdout
        assert "--quiet" in said, command


def test_yaml_says_what_json_says(towline: Terminal) -> None:
    printed = towline("workflow", "list", "--output", "yaml").stdout
    read = yaml.safe_load(printed)
    assert [each["name"] for each in read["workflows"]] == ["no", "b: c"]
    assert (list(read), read["nextPageToken"]) == (["workflows", "nextPageToken"], "n")


@pytest.mark.parametrize("command", ["run watch r1", "run logs r1"])
def test_a_stream_in_yaml_is_a_document_each(command: str, towline: Terminal) -> None:
    assert len(list(yaml.safe_load_all(towline(*command.split(), "-o", "yaml").stdout))) == 2


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "xterm-256color", "COLORTERM": "truecolor"}])
def test_what_is_piped_has_no_colours(
    variables: dict[str, str], towline: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    printed = [towline(*command.split()).stdout for command in ("run get r1", "run watch r1", "run logs r1")]
    assert "SUCCEEDED" in printed[0]
    assert "\x1b" not in "".join(printed)


# The shell, and how it asks.
SHELLS = [
    ("bash", {"COMP_WORDS": "towline workflow va", "COMP_CWORD": "2"}),
    ("zsh", {"_TYPER_COMPLETE_ARGS": "towline workflow va"}),
    ("fish", {"_TYPER_COMPLETE_ARGS": "towline workflow va", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
]


def typed(shell: str, instruction: str, **variables: str) -> str:
    environment = {"PATH": os.environ["PATH"], "_TOWLINE_COMPLETE": f"{instruction}_{shell}", **variables}
    command = [sys.executable, "-m", "towline_cli"]
    program = Path(sys.executable).with_name("towline")
    done = subprocess.run(
        [program] if program.exists() else command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("shell", "question"), SHELLS, ids=[shell for shell, _ in SHELLS])
def test_a_shell_is_told_how_to_complete_and_what(shell: str, question: dict[str, str]) -> None:
    assert "_TOWLINE_COMPLETE=complete" in typed(shell, "source")
    assert "validate" in typed(shell, "complete", **question)


def test_the_document_has_the_exit_codes() -> None:
    rows = re.findall(r"^\| `(\d+)` \| (.+) \|$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert " · ".join(f"{code} {meaning}" for code, meaning in rows) == EXPLAINED.removeprefix("Exit codes: ")
    assert {int(code) for code, _ in rows} >= set(ExitCode)
