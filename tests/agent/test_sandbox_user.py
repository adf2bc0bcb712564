"""The sandbox of an agent that is not root: all its tests again, as an ordinary user."""

import subprocess
import sys
from pathlib import Path

import pytest
from sandbox_scenario import IS_ROOT

HERE = Path(__file__).parent
TESTS = ("test_sandbox.py", "test_sandbox_attacks.py", "test_sandbox_traps.py", "test_probe.py")


@pytest.mark.skipif(not IS_ROOT, reason="the tests themselves run as an ordinary user already")
@pytest.mark.parametrize("file", TESTS)
def test_all_holds_for_an_agent_of_an_ordinary_user(tmp_path: Path, file: str) -> None:
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    pytest_of_user = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path}"]
    command = [*user, *pytest_of_user, str(HERE / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout[-3000:]
