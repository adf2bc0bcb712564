"""A frozen attempt does nothing at all, its clocks stand still, and it ends as whole as any other."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from supervisor_scenario import PATIENCE, Stage, play
from test_supervisor_trees import ESCAPE, alive, await_death, pids_in

from towline_agent.execution import EndReason
from towline_agent.frozen_tree import FrozenTree

FORKING = """
import os, time

def run():
    print("main", os.getpid(), flush=True)
    while True:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(0.02)
            os._exit(0)
        os.wait()
"""
"""Processes that live for a moment, detached, and one that makes them without end."""


def below(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


STILL = {
    psutil.STATUS_STOPPED,
    psutil.STATUS_ZOMBIE,
    psutil.STATUS_DISK_SLEEP,  # as a shell whose child was stopped between vfork and exec
}


def still(pids: set[int]) -> bool:
    return all(is_still(pid) for pid in pids)


def is_still(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in STILL
    except psutil.NoSuchProcess:  # it ended between two looks
        return True


async def come_true(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - processes tell nobody when they stop
            await asyncio.sleep(0.01)


def shim_of(pid: int) -> int:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return parent.pid


def test_no_fork_escapes_a_freeze_and_all_goes_on_after_it(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.python(FORKING)
        ending, output = stage.begin(launch)
        (main,) = pids_in(await output.lines(1))
        shim = shim_of(main)
        for _ in range(10):
            stage.supervisor.freeze(launch.key)
            await come_true(lambda: still(below(shim)) and still(below(shim)))
            members = below(shim)
            await asyncio.sleep(0.1)
            assert below(shim) == members
            assert still(members)
            stage.supervisor.thaw(launch.key)
            await come_true(lambda: not still({main}))
        stage.supervisor.stop(launch.key)
        assert (await ending).reason is EndReason.STOPPED
        assert alive([main]) == []

    play(tmp_path, scenario)


def test_the_timeout_counts_only_what_has_run(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("echo $$; sleep 0.2; echo done", timeout_seconds=1.5)
        ending, output = stage.begin(launch)
        await output.lines(1)
        stage.supervisor.freeze(launch.key)
        await asyncio.sleep(2.5)
        assert not ending.done()
        stage.supervisor.thaw(launch.key)
        ended = await ending
        assert (ended.reason, ended.exit_code, output.stdout.splitlines()[-1]) == (EndReason.EXITED, 0, "done")
        assert ended.elapsed_seconds < 1.5

    play(tmp_path, scenario)


def test_a_thawed_attempt_still_times_out(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("echo $$; sleep 1000", timeout_seconds=0.5)
        ending, output = stage.begin(launch)
        await output.lines(1)
        stage.supervisor.freeze(launch.key)
        await asyncio.sleep(1.0)
        stage.supervisor.thaw(launch.key)
        ended = await ending
        assert ended.reason is EndReason.TIMEOUT
        assert 0.4 < ended.elapsed_seconds < PATIENCE

    play(tmp_path, scenario)


def test_a_frozen_attempt_that_is_stopped_gets_its_grace(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("trap 'echo bye; exit 3' TERM; echo $$; while :; do sleep 0.05; done")
        ending, output = stage.begin(launch)
        (main,) = [int(line) for line in await output.lines(1)]
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still({main}))
        stage.supervisor.stop(launch.key)
        ended = await ending
        assert (ended.reason, output.stdout.splitlines()[-1]) == (EndReason.STOPPED, "bye")
        assert alive([main]) == []

    play(tmp_path, scenario)


def test_a_frozen_tree_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    code = ESCAPE + "def run():\n    escape('a')\n    time.sleep(1000)"

    async def scenario(stage: Stage) -> None:
        launch = stage.python(code)
        ending, output = stage.begin(launch)
        pids = pids_in(await output.lines(2))
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still(pids))
        ending.cancel()
        await asyncio.wait([ending])
        assert alive(pids) == []

    play(tmp_path, scenario)


def test_a_frozen_tree_dies_with_its_agent(tmp_path: Path) -> None:
    code = ESCAPE + "def run():\n    escape('a')\n    time.sleep(1000)"

    async def scenario(stage: Stage) -> None:
        launch = stage.python(code)
        ending, output = stage.begin(launch)
        pids = pids_in(await output.lines(2))
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still(pids))
        await stage.supervisor.close()
        await ending
        assert alive(pids) == []

    play(tmp_path, scenario)


def test_whom_somebody_wakes_is_stopped_again(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("echo $$; sleep 1000")
        ending, output = stage.begin(launch)
        (main,) = [int(line) for line in await output.lines(1)]
        stage.supervisor.freeze(launch.key)
        await come_true(lambda: still({main}))
        os.kill(main, signal.SIGCONT)
        await come_true(lambda: still({main}))
        stage.supervisor.stop(launch.key)
        await ending

    play(tmp_path, scenario)


def test_what_was_stopped_before_stays_so() -> None:
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(1000)\ntime.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code]) as root:
        try:
            while not (members := below(root.pid)):
                time.sleep(0.01)
            (child,) = members
            os.kill(child, signal.SIGSTOP)
            while not still(members):
                time.sleep(0.01)
            tree = FrozenTree(root.pid)
            assert not tree.settle(0.0)
            assert tree.settle(1.0)
            tree.thaw()
            assert still(members)
        finally:
            for pid in (*below(root.pid), root.pid):
                os.kill(pid, signal.SIGKILL)
    await_death(members)
