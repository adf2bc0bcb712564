"""A frozen attempt does nothing at all, its clocks stand still, and it ends as whole as any other."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sandbox_scenario import ISOLATED, give
from standing_still import below, come_true, still
from supervisor_scenario import Stage, play
from test_supervisor_trees import ESCAPE, alive, await_death, pids_in, supervisor_pid

from towline_agent import cgroups
from towline_agent.cgroup_files import Controller
from towline_agent.cgroups import Hierarchy
from towline_agent.execution import EndReason, Launch
from towline_agent.frozen_group import FrozenGroup
from towline_agent.frozen_tree import FrozenTree
from towline_agent.watched_attempt import Rung, WatchedAttempt

FORKING = """
import os

def run():
    print("main", os.getpid(), flush=True)
    while True:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for _ in range(1000):
                    os.sched_yield()
            os._exit(0)
        os.wait()
"""
"""Processes that live for a moment, detached, and one that makes them without end."""
ESCAPED = ESCAPE + "def run():\n    escape('a')\n    time.sleep(1000)"
SPINNING = "import os\ndef run():\n    print('main', os.getpid(), flush=True)\n    while True:\n        pass"
WITNESS = "exit 0"
"""While it runs from its start to its end, what stands still does nothing."""


def freezer_of_v1(folder: Path) -> Hierarchy:
    """A place in the hierarchy of v1, as an agent finds it where v2 is not mounted."""
    here = Path("/proc/self")
    of_v1 = [line for line in (here / "mountinfo").read_text().splitlines() if " cgroup rw,freezer" in line]
    (folder / "mountinfo").write_text("\n".join(of_v1))
    (folder / "cgroup").write_text((here / "cgroup").read_text())
    return cgroups.claim(folder)


@pytest.fixture(params=["signals", "v2", "v1"])
def groups(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hierarchy | None]:
    if request.param == "signals":
        yield None
        return
    try:
        claimed = cgroups.claim() if request.param == "v2" else freezer_of_v1(tmp_path_factory.mktemp("self"))
    except cgroups.Unavailable as reason:
        pytest.skip(f"no control groups on this host: {reason}")
    version = claimed.versions.get(Controller.FREEZE)
    if f"v{version}" != request.param:
        claimed.dissolve()
        pytest.skip(f"no group of {request.param} can be frozen on this host")
    yield claimed
    claimed.dissolve()
    assert not any(folder.exists() for folder in claimed.folders.values())


def shim_of(pid: int) -> int:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return parent.pid


def test_no_fork_escapes_a_freeze_and_all_goes_on_after_it(tmp_path: Path, groups: Hierarchy | None) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.python(FORKING)
        ending, output = stage.begin(launch)
        (main,) = pids_in(await output.lines(1))
        shim = shim_of(main)
        for _ in range(5):
            stage.supervisor.freeze(launch.key)
            await come_true(lambda: still(below(shim)) and still(below(shim)))
            members = below(shim)
            await stage.run(stage.shell(WITNESS))
            assert below(shim) <= members  # what had ended already may be gone
            assert still(members)
            stage.supervisor.thaw(launch.key)
            await come_true(lambda: not still({main}))
        stage.supervisor.stop(launch.key)
        assert (await ending).reason is EndReason.STOPPED
        assert alive([main]) == []

    play(tmp_path, scenario, groups=groups)


def test_what_is_frozen_uses_no_processor(tmp_path: Path, groups: Hierarchy | None) -> None:
    def used(pid: int) -> str:
        return Path(f"/proc/{pid}/schedstat").read_text().split()[0]

    async def scenario(stage: Stage) -> None:
        launch = stage.python(SPINNING)
        ending, output = stage.begin(launch)
        (main,) = pids_in(await output.lines(1))
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still({main}))
        before = used(main)
        await stage.run(stage.shell(WITNESS))
        assert used(main) == before
        stage.supervisor.thaw(launch.key)
        await come_true(lambda: used(main) != before)
        stage.supervisor.stop(launch.key)
        await ending

    play(tmp_path, scenario, groups=groups)


def test_the_timeout_counts_only_what_has_run(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "1000"]) as shim:
        launch = Launch("key", "run", tmp_path, tmp_path, None, {}, b"", 10.0, memory_bytes=2**40, output_bytes=0)
        attempt = WatchedAttempt(launch, shim.pid, report=-1, started=100.0)
        attempt.freeze(104.0)
        attempt.tick(9000.0)
        assert attempt.rung is Rung.RUNNING
        attempt.thaw(9004.0)
        attempt.tick(9009.9)
        assert attempt.rung is Rung.RUNNING
        attempt.tick(9010.0)
        assert (attempt.rung, attempt.cause) == (Rung.STOPPING, EndReason.TIMEOUT)
        shim.kill()


def test_a_thawed_attempt_still_times_out(tmp_path: Path, groups: Hierarchy | None) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("echo main $$; while :; do :; done", timeout_seconds=1.0)
        ending, output = stage.begin(launch)
        pids = pids_in(await output.lines(1))
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still(pids))
        stage.supervisor.thaw(launch.key)
        assert (await ending).reason is EndReason.TIMEOUT

    play(tmp_path, scenario, groups=groups)


def test_a_frozen_attempt_that_is_stopped_gets_its_grace(tmp_path: Path, groups: Hierarchy | None) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("trap 'echo bye; exit 3' TERM; echo main $$; while :; do :; done")
        ending, output = stage.begin(launch)
        pids = pids_in(await output.lines(1))
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still(pids))
        stage.supervisor.stop(launch.key)
        ended = await ending
        assert (ended.reason, output.stdout.splitlines()[-1]) == (EndReason.STOPPED, "bye")
        assert alive(pids) == []

    play(tmp_path, scenario, groups=groups)


@pytest.mark.parametrize("end", ["cancelled", "closed", "supervisor killed", "shim killed"])
def test_a_frozen_tree_that_is_killed_leaves_nothing(tmp_path: Path, groups: Hierarchy | None, end: str) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.python(ESCAPED)
        ending, output = stage.begin(launch)
        pids = pids_in(await output.lines(2))
        (main,) = pids_in(line for line in output.stdout.splitlines() if line.startswith("main"))
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still(pids))
        match end:
            case "cancelled":
                ending.cancel()
            case "closed":
                await stage.supervisor.close()
            case "supervisor killed":
                os.kill(supervisor_pid(), signal.SIGKILL)
            case _:
                os.kill(shim_of(main), signal.SIGKILL)
        await come_true(ending.done)
        assert alive(pids) == []

    play(tmp_path, scenario, groups=groups)


def test_an_isolated_tree_is_frozen_and_dies_with_its_supervisor(tmp_path: Path, groups: Hierarchy | None) -> None:
    async def scenario(stage: Stage) -> None:
        launch = give(stage.python(ESCAPED, confinement=ISOLATED))
        ending, output = stage.begin(launch)
        await output.lines(2)
        members = below(supervisor_pid())
        plugins = {pid for pid in members if len(psutil.Process(pid).parents()) > len(psutil.Process().parents()) + 2}
        assert len(plugins) >= 2
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still(plugins))
        os.kill(supervisor_pid(), signal.SIGKILL)
        assert (await ending).reason is EndReason.SUPERVISOR_LOST
        await_death(members)

    play(tmp_path, scenario, groups=groups)


def test_whom_somebody_wakes_is_stopped_again(tmp_path: Path, groups: Hierarchy | None) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("echo main $$; sleep 1000")
        ending, output = stage.begin(launch)
        pids = pids_in(await output.lines(1))
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still(pids))
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        await come_true(lambda: still(pids))
        stage.supervisor.stop(launch.key)
        await ending

    play(tmp_path, scenario, groups=groups)


STOPPED_CHILD = """
import os, signal, time
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
os.waitpid(child, os.WUNTRACED)
print(child, flush=True)
time.sleep(1000)
"""


def test_what_was_stopped_before_stays_so() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED_CHILD], stdout=subprocess.PIPE) as root:
        assert root.stdout is not None
        child = int(root.stdout.readline())
        tree = FrozenTree(root.pid)
        assert not tree.settle(0.0)
        assert tree.settle(1.0)
        tree.thaw()
        assert psutil.Process(child).status() == psutil.STATUS_STOPPED
        os.kill(child, signal.SIGKILL)
        root.kill()
    await_death([child])


def test_a_group_that_cannot_be_frozen_is_stopped_process_by_process(tmp_path: Path) -> None:
    gone = {Controller.FREEZE: tmp_path / "gone"}
    assert cgroups.Group({}, {}).freeze() is None
    assert cgroups.Group(gone, {Controller.FREEZE: 2}).freeze() is None


@pytest.mark.parametrize(
    ("version", "order", "state", "frozen"),
    [(1, "freezer.state", "freezer.state", "FROZEN"), (2, "cgroup.freeze", "cgroup.events", "populated 1\nfrozen 1\n")],
)
def test_dialects(tmp_path: Path, version: int, order: str, state: str, frozen: str) -> None:
    (tmp_path / order).touch()
    group = FrozenGroup(tmp_path, version)
    (tmp_path / state).write_text("populated 1\nfrozen 0\n")
    assert not group.settle(5.0)
    assert group.due > 5.0
    (tmp_path / state).write_text(frozen)
    assert group.settle(6.0)
    group.thaw()
    assert (tmp_path / order).read_text().startswith(("THAWED", "0"))
