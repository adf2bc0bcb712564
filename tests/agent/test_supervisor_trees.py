"""No process of an attempt survives it, whatever it does and whoever is killed."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
from supervisor_scenario import PATIENCE, Stage, play

from towline_agent.execution import EndReason

ESCAPE = """
import os, signal, time

def escape(name):
    told, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(1, f"{name} {os.getpid()}\\n".encode())
            os.closerange(3, 100)
            time.sleep(1000)
        os._exit(0)
    os.close(tell)
    os.read(told, 1)
    print("main", os.getpid(), flush=True)
"""
"""Defines `escape`, which returns when a process of its own session, whose parent is gone, has printed its pid."""


def pids_in(lines: Iterable[str]) -> set[int]:
    return {int(line.split()[1]) for line in lines}


def alive(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid)]


def await_death(pids: Iterable[int]) -> None:
    processes: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    _, left = psutil.wait_procs(processes, timeout=PATIENCE)
    assert left == []


def supervisor_pid() -> int:
    (supervisor,) = [child for child in psutil.Process().children() if "towline_agent.supervisor" in child.cmdline()]
    return supervisor.pid


def test_detached_double_fork_is_dead_when_the_end_is_known(tmp_path: Path) -> None:
    code = ESCAPE + "def run():\n    escape('a')\n    escape('b')"

    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.python(code))
        assert ended.reason == EndReason.EXITED
        escaped = pids_in(line for line in output.stdout.splitlines() if not line.startswith("main"))
        assert len(escaped) == 2
        assert alive(escaped) == []
        assert escaped <= set(ended.killed)

    play(tmp_path, scenario)


def test_background_child_that_holds_the_output_open_does_not_delay_the_end(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.shell("sleep 1000 & echo $!; echo done"))
        pid, done = output.stdout.splitlines()
        assert done == "done"
        assert alive([int(pid)]) == []
        assert ended.killed == (int(pid),)
        assert ended.elapsed_seconds < PATIENCE

    play(tmp_path, scenario)


def test_memory_limit_counts_the_whole_tree(tmp_path: Path) -> None:
    hog = "import sys, time; held = bytearray(60_000_000); print(len(held), flush=True); time.sleep(1000)"
    script = f'for i in 1 2 3; do {sys.executable} -S -c "{hog}" & done; wait'

    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.shell(script, memory_bytes=150_000_000))
        assert ended.reason == EndReason.MEMORY_LIMIT
        assert ended.peak_memory_bytes > 150_000_000

    play(tmp_path, scenario)


def test_memory_shared_by_forks_counts_once(tmp_path: Path) -> None:
    code = """
import os, time
def run():
    held = bytearray(60_000_000)
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            time.sleep(1)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
"""

    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.python(code, memory_bytes=150_000_000))
        assert ended.reason == EndReason.EXITED
        assert 60_000_000 < ended.peak_memory_bytes < 150_000_000

    play(tmp_path, scenario)


def test_killing_its_own_parent_frees_no_process(tmp_path: Path) -> None:
    code = (
        ESCAPE
        + """
def run():
    escape('a')
    escape('b')
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1000)
"""
    )

    async def scenario(stage: Stage) -> None:
        bystander, watched = stage.begin(stage.shell("echo $$; sleep 1000"))
        (bystander_pid,) = await watched.lines(1)
        ended, output = await stage.run(stage.python(code))
        pids = pids_in(output.stdout.splitlines())
        assert len(pids) == 3
        assert alive(pids) == []
        assert (ended.reason, ended.signal) == (EndReason.SIGNALED, signal.SIGKILL)
        assert "parent" in ended.message
        assert alive([int(bystander_pid)])
        bystander.cancel()

    play(tmp_path, scenario)


def test_stopped_shim_does_not_outlast_the_timeout(tmp_path: Path) -> None:
    code = (
        ESCAPE
        + """
def run():
    escape('a')
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(1000)
"""
    )

    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.python(code, timeout_seconds=1, kill_grace_seconds=0.1))
        assert ended.reason == EndReason.TIMEOUT
        assert alive(pids_in(output.stdout.splitlines())) == []

    play(tmp_path, scenario)


def test_cancelled_run_has_killed_its_tree(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        running, output = stage.begin(stage.shell("trap '' TERM; setsid sleep 1000 & echo $$; echo $!; wait"))
        pids = [int(line) for line in await output.lines(2)]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert alive(pids) == []

    play(tmp_path, scenario)


def test_close_kills_what_runs_and_says_so(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        running, output = stage.begin(stage.shell("trap '' TERM; echo $$; sleep 1000"))
        (pid,) = await output.lines(1)
        await stage.supervisor.close()
        assert (await running).reason == EndReason.STOPPED
        assert alive([int(pid)]) == []
        ended, _ = await stage.run(stage.shell("exit 0"))
        assert ended.reason == EndReason.SUPERVISOR_LOST

    play(tmp_path, scenario)


def test_killed_supervisor_takes_its_trees_with_it_and_is_replaced(tmp_path: Path) -> None:
    code = ESCAPE + "def run():\n    escape('a')\n    time.sleep(1000)"

    async def scenario(stage: Stage) -> None:
        begun = [stage.begin(stage.python(code)) for _ in range(3)]
        pids = pids_in([line for _, output in begun for line in await output.lines(2)])
        assert len(alive(pids)) == 6
        os.kill(supervisor_pid(), signal.SIGKILL)
        for running, _ in begun:
            assert (await running).reason == EndReason.SUPERVISOR_LOST
        assert alive(pids) == []
        ended, output = await stage.run(stage.shell("echo again"))
        assert (ended.reason, output.stdout) == (EndReason.EXITED, "again\n")

    play(tmp_path, scenario)


AGENT = """
import asyncio, sys
from pathlib import Path
from supervisor_scenario import Stage, stage

async def main():
    async with stage(Path(sys.argv[1])) as scene:
        running = [scene.begin(scene.python(sys.argv[2])) for _ in range(2)]
        for _, output in running:
            print(*[line.split()[1] for line in await output.lines(2)], flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_killed_agent_leaves_no_process(tmp_path: Path) -> None:
    code = ESCAPE + "def run():\n    escape('a')\n    time.sleep(1000)"
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", AGENT, str(tmp_path), code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": folder}
    ) as agent:
        assert agent.stdout is not None
        pids = [int(pid) for _ in range(2) for pid in agent.stdout.readline().split()]
        family = [child.pid for child in psutil.Process(agent.pid).children(recursive=True)]
        assert len(pids) == 4
        assert set(pids) <= set(family)
        agent.kill()
    await_death(family)


def test_fork_bomb_is_put_out(tmp_path: Path) -> None:
    code = """
import os, time
def run():
    for _ in range(7):
        os.fork()
    print(os.getpid(), flush=True)
    time.sleep(1000)
"""

    async def scenario(stage: Stage) -> None:
        launch = stage.python(code)
        running, output = stage.begin(launch)
        pids = [int(line) for line in await output.lines(128)]
        stage.supervisor.stop(launch.key)
        assert (await running).reason == EndReason.STOPPED
        assert alive(pids) == []

    play(tmp_path, scenario)


def test_pipe_held_by_somebody_outside_is_given_up(tmp_path: Path) -> None:
    """A descriptor may leave the tree; here this test takes one out of the running plugin."""

    async def scenario(stage: Stage) -> None:
        fifo = tmp_path / "gate"
        os.mkfifo(fifo)
        launch = stage.shell(f"echo $$; cat {fifo}; echo last words")
        running, output = stage.begin(launch)
        (pid,) = await output.lines(1)
        taken = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
        os.close(os.open(fifo, os.O_WRONLY))
        async with asyncio.timeout(PATIENCE):
            ended = await running
        os.close(taken)
        assert ended.reason == EndReason.EXITED
        assert output.stdout.endswith("last words\n")

    play(tmp_path, scenario)
