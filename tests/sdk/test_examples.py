"""The examples of `docs/sdk.md`, as they stand: run on the fake control plane, and named in the document."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from api_scenario import PLUGINS

from towline_sdk.testing import FakeControlPlane

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "sdk"
# What each prints last.
SCRIPTS = {
    "follow_a_run.py": "SUCCEEDED {'tidy': {'text': 'ADA'}}",
    "greeting.py": "}",
    "without_an_event_loop.py": "there is no run no-such-run",
}


def run_example(name: str, address: str = "", token: str = "") -> str:
    environment = {**os.environ, "TOWLINE_SERVER": address, "TOWLINE_TOKEN": token}
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_an_example_runs_as_it_stands(name: str) -> None:
    with FakeControlPlane(PLUGINS) as fake:
        assert run_example(name, fake.address, fake.token).splitlines()[-1] == SCRIPTS[name]


def test_the_example_of_a_document_is_one() -> None:
    assert json.loads(run_example("greeting.py"))["dag"]["edges"][0]["from"] == "shout"


def test_the_example_of_a_test_passes() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_my_program.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=EXAMPLES)
    assert "1 passed" in done.stdout, done.stdout


def test_the_document_names_every_example() -> None:
    text = (ROOT / "docs" / "sdk.md").read_text()
    assert all(path.name in text for path in EXAMPLES.glob("*.py"))
