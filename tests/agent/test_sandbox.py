"""What confined plugins can still do, how their ends are told, and that nothing is left of them."""

import fcntl
import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from sandbox_scenario import (
    CONTAINS,
    ISOLATED,
    UID,
    each_level,
    from_l3,
    give,
    outcome,
    run,
)
from supervisor_scenario import Stage, play

from towline_agent import cgroups
from towline_agent.cgroup_files import Controller
from towline_agent.cgroups import Hierarchy
from towline_agent.execution import EndReason, Exit
from towline_agent.sandbox.levels import Confinement, Level, Network

NOWHERE = Path("/nonexistent/towline")
GONE = Hierarchy(
    dict.fromkeys((Controller.MEMORY, Controller.PIDS), NOWHERE), dict.fromkeys((Controller.MEMORY, Controller.PIDS), 1)
)


@each_level
def test_honest_plugins_work_at_every_level(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import colorsys, os, subprocess, threading
from pathlib import Path
def run():
    Path("file").write_text("1")
    Path(os.environ.get("TMPDIR", "."), "other").write_text("2")
    seen = []
    thread = threading.Thread(target=lambda: seen.append("thread")); thread.start(); thread.join()
    shell = "echo out; echo err > /dev/stderr; cat file | tr 1 3 > copied; cat copied"
    seen.append(subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout)
    seen.append(len(os.urandom(8)))
    return [*seen, sorted(os.listdir("."))[:2]]
"""
    assert run(tmp_path, code, confinement) == ["thread", "out\n3", 8, ["copied", "file"]]


@each_level
def test_executables_work_at_every_level(tmp_path: Path, confinement: Confinement) -> None:
    async def scenario(stage: Stage) -> None:
        script = "cat; echo told > /dev/stderr; printf '{\"pid\": 1}' >&3; exit 0"
        ended, output = await stage.run(give(stage.shell(script, confinement=confinement)))
        assert (ended.exit_code, ended.result, output.stdout, output.stderr) == (0, b'{"pid": 1}', "{}", "told\n")

    play(tmp_path, scenario)


def test_a_network_of_its_own_has_a_loopback_that_works(tmp_path: Path) -> None:
    code = """
import socket
def run():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.send(b"z")
        return server.accept()[0].recv(1).decode()
"""
    assert run(tmp_path, code, ISOLATED) == "z"


@from_l3
def test_its_own_tmp_is_empty_bounded_in_bytes_and_files_and_gone_afterwards(
    tmp_path: Path, confinement: Confinement
) -> None:
    code = """
import os
from pathlib import Path
def run():
    def attempt(what):
        try:
            return what()
        except OSError as error:
            return error.strerror
    before = [name for name in os.listdir("/tmp") if os.path.isfile("/tmp/" + name)]
    Path("/tmp/mine").write_text("x")
    Path("/var/tmp/also").write_text("x")
    def fill():
        with open("/dev/shm/large", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 65 * 1024 * 1024)
    def many():
        for number in range(70_000):
            os.close(os.open(f"/tmp/{number}", os.O_CREAT))
    return [before, attempt(fill), attempt(many)]
"""

    async def scenario(stage: Stage) -> None:
        for _ in range(2):  # the second finds nothing of the first
            found = await outcome(stage, code, confinement, memory_bytes=64 * 1024 * 1024)
            assert found == [[], "No space left on device", "No space left on device"]

    play(tmp_path, scenario)
    assert not Path("/tmp/mine").exists()


@each_level
def test_nothing_outlives_the_tree(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import fcntl, os, signal
from pathlib import Path
from towline_agent.sandbox.canary import ATTACKS
def run():
    for _ in range(3):
        ATTACKS["outlive"]({})
        Path("locked").unlink()
        os.rename("alive", f"alive-{_}")
"""

    async def scenario(stage: Stage) -> None:
        launch = give(stage.python(code, confinement=confinement))
        ended, output = await stage.run(launch)
        assert (ended.exit_code, output.stderr) == (0, "")
        assert len(ended.killed) >= 3
        for number in range(3):
            with (launch.work_dir / f"alive-{number}").open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    play(tmp_path, scenario)


@from_l3
def test_ends_are_told_as_they_are_without_a_sandbox(tmp_path: Path, confinement: Confinement) -> None:
    async def scenario(stage: Stage) -> None:
        async def end(code: str, **settings: Any) -> Exit:
            return (await stage.run(give(stage.python(code, confinement=confinement, **settings))))[0]

        crash = await end("import os, signal\ndef run():\n    os.kill(os.getpid(), signal.SIGSEGV)")
        assert (crash.reason, crash.signal) == (EndReason.SIGNALED, signal.SIGSEGV)
        late = await end("import time\ndef run():\n    time.sleep(60)", timeout_seconds=0.2)
        assert (late.reason, late.signal) == (EndReason.TIMEOUT, signal.SIGTERM)
        deaf = "import signal, time\ndef run():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(60)"
        killed = await end(deaf, timeout_seconds=0.2, kill_grace_seconds=0.1)
        assert (killed.reason, killed.signal) == (EndReason.TIMEOUT, signal.SIGKILL)
        large = await end("def run():\n    return len(bytearray(300_000_000))", memory_bytes=64 * 1024 * 1024)
        assert large.reason in (EndReason.MEMORY_LIMIT, EndReason.EXITED)
        gone = await stage.run(give(stage.launch("absent", plugin_dir=stage.bundle({}), confinement=confinement)))
        assert (gone[0].reason, "absent" in gone[0].message) == (EndReason.SPAWN_FAILED, True)

    play(tmp_path, scenario)


@from_l3
def test_a_dead_supervisor_takes_its_confined_trees_along(tmp_path: Path, confinement: Confinement) -> None:
    code = "import time\ndef run():\n    print('runs', flush=True)\n    time.sleep(60)"

    async def scenario(stage: Stage) -> None:
        launch = give(stage.python(code, confinement=confinement))
        task, output = stage.begin(launch)
        await output.lines(1)
        for child in psutil.Process().children():
            child.kill()
        assert (await task).reason is EndReason.SUPERVISOR_LOST

    play(tmp_path, scenario)


def test_what_cannot_be_confined_is_not_run(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        broken = stage.python(
            "def run():\n    open('ran', 'w')", confinement=ISOLATED, artifacts_dir=tmp_path / "absent"
        )
        ended, _ = await stage.run(broken)
        assert (ended.reason, str(tmp_path / "absent") in ended.message) == (EndReason.SANDBOX_FAILED, True)
        assert not (broken.work_dir / "ran").exists()

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("groups", "uid"),
    [
        (None, UID),
        (GONE, UID),
        (Hierarchy({Controller.MEMORY: NOWHERE}, {Controller.MEMORY: 1}), UID),
        (GONE, None),
    ],
    ids=["no groups", "cannot be made", "processes unlimited", "no user"],
)
def test_an_attempt_is_not_run_without_the_group_and_the_user_that_l4_promises(
    tmp_path: Path, groups: Hierarchy | None, uid: int | None
) -> None:
    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.shell("echo ran", confinement=Confinement(Level.L4, Network.OWN, uid)))
        assert (ended.reason, output.stdout) == (EndReason.SANDBOX_FAILED, "")
        assert ended.message.startswith(("control group: L4 needs", str(NOWHERE)))

    play(tmp_path, scenario, groups=groups)


@pytest.mark.skipif(not CONTAINS, reason="this host or this user has no groups that limit memory and processes")
def test_an_attempt_at_l4_runs_as_its_own_user_in_its_own_group(tmp_path: Path) -> None:
    groups = cgroups.claim()
    of_agent = Path("/proc/self/cgroup").read_text()
    code = """
import os, pathlib
def run():
    held = bytearray(10_000_000)
    return os.getuid(), pathlib.Path("/proc/self/cgroup").read_text()
"""

    async def scenario(stage: Stage) -> None:
        launch = give(stage.python(code, confinement=Confinement(Level.L4, Network.OWN, UID)))
        ended, output = await stage.run(launch)
        assert ended.reason is EndReason.EXITED, (ended, output.stderr)
        uid, memberships = json.loads(ended.result)
        assert (uid, ended.watch.by_kernel) == (UID, True)
        assert memberships != of_agent

    try:
        play(tmp_path, scenario, groups=groups)
    finally:
        groups.dissolve()
