"""The two commands of the README, as a person runs them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def descendants(pid: int) -> set[int]:
    """Returns the processes that come from `pid`, by the kernel's own list."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= {int(child)} | descendants(int(child))
    return found


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_demo_runs_the_examples_as_expected() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--output", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = {result["example"]: result for result in json.loads(done.stdout)}
    assert {name: result["run"]["state"] for name, result in results.items()} == {
        "text-transform": "SUCCEEDED",
        "log-analysis": "SUCCEEDED",
        "word-count": "SUCCEEDED",
        "report": "SUCCEEDED",
    }
    steps = {step["nodeId"]: (step["state"], step["attempt"]) for step in results["log-analysis"]["steps"]}
    assert steps["by_hour"] == ("SUCCEEDED", 3)
    assert steps["alert"] == ("SKIPPED", 0)


def test_up_serves_until_ctrl_c_and_stops_all_its_children(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "towline_cli", "up", "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(
        [*command, "--http-port", "0", "--grpc-port", "0"], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as up:
        assert up.stdout is not None
        banner: list[str] = []
        for line in up.stdout:
            banner.append(line)
            if "Admin" in line:
                break
        children = descendants(up.pid)
        assert len(children) >= 4, "control plane, gateway, agent and its supervisor"
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
        assert not any(alive(child) for child in children)
    secrets = json.loads((tmp_path / "data" / "secrets.json").read_text())
    assert any(secrets["admin_password"] in line for line in banner)
    assert (tmp_path / "data" / "secrets.json").stat().st_mode & 0o777 == 0o600
