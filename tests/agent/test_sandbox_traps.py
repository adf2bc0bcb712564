"""Where the kernel's means are weaker than they look: each shown as it is, and what is done about it.

The table in docs/sandbox.md names these tests and the others by which each trap is covered.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sandbox_scenario import CONTAINS, IS_ROOT, UID, neighbour, outcome
from supervisor_scenario import PATIENCE, Output, Stage, play
from test_supervisor_trees import ESCAPE, alive, await_death, pids_in, supervisor_pid

from towline_agent import artifact_folder, cgroups
from towline_agent.execution import EndReason, Exit
from towline_agent.sandbox import bait, landlock
from towline_agent.sandbox.levels import Confinement, Level
from towline_agent.supervisor_client import ProcessSupervisor

MIB = 1024 * 1024
CROWDED_UID, OTHER_UID = UID + 900, UID + 901  # no other test's, of those that run at the same time

HOLDING = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (150_000_000, 150_000_000))
held = b"x" * 60_000_000
print(len(held), flush=True)
time.sleep(1000)
"""


def test_address_space_is_limited_by_process_and_the_memory_of_a_tree_by_us(tmp_path: Path) -> None:
    (tmp_path / "holding.py").write_text(HOLDING)
    script = f"for i in 1 2 3; do {sys.executable} -S {tmp_path / 'holding.py'} & done; wait"

    async def scenario(stage: Stage) -> None:
        passing = stage.shell(script, memory_bytes=400_000_000)
        running, output = stage.begin(passing)
        assert await output.lines(3) == ["60000000"] * 3  # 180 MB below a limit of 150 MB
        stage.supervisor.stop(passing.key)
        assert (await running).reason is EndReason.STOPPED
        ended, _ = await stage.run(stage.shell(script, memory_bytes=150_000_000))
        assert ended.reason is EndReason.MEMORY_LIMIT
        assert ended.peak_memory_bytes > 150_000_000

    play(tmp_path, scenario)


def test_files_are_limited_one_by_one_and_what_is_kept_of_them_together(tmp_path: Path) -> None:
    code = """
import os
from pathlib import Path
def run(config):
    for number in range(5):
        Path(config["folder"], str(number)).write_bytes(bytes(1_000_000))
    try:
        Path("large").write_bytes(bytes(1_000_001))
    except OSError as error:
        return error.strerror
"""

    async def scenario(stage: Stage) -> None:
        asked = {"config": {"folder": str(kept)}}
        ended, _ = await stage.run(stage.python(code, asked, file_bytes=1_000_000, artifacts_dir=kept))
        assert json.loads(ended.result) == "File too large"

    kept = tmp_path / "kept"
    kept.mkdir()
    play(tmp_path, scenario)
    assert artifact_folder.look(kept, 5_000_000).bytes == 5_000_000
    with pytest.raises(artifact_folder.TooMuch):
        artifact_folder.look(kept, 4_999_999)


FORKING = """
import os, resource, sys, time
resource.setrlimit(resource.RLIMIT_NPROC, (10, 10))
children = 0
try:
    for _ in range(int(sys.argv[1])):
        if os.fork() == 0:
            time.sleep(1000)
        children += 1
except BlockingIOError:
    pass
print(children, flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(not IS_ROOT, reason="the limit by user holds every other user")
def test_root_passes_the_limit_of_processes_by_user_but_not_that_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(FORKING)
    script = f"exec {sys.executable} -S {tmp_path / 'forking.py'} 30"

    async def scenario(stage: Stage) -> None:
        passing = stage.shell(script)
        running, output = stage.begin(passing)
        assert await output.lines(1) == ["30"]
        stage.supervisor.stop(passing.key)
        await running
        ended, _ = await stage.run(stage.shell(script, processes=20))
        assert ended.reason is EndReason.PROCESS_LIMIT

    play(tmp_path, scenario)


@pytest.mark.skipif(not IS_ROOT, reason="only root can be other users")
def test_users_share_their_limit_of_processes_so_attempts_do_not_share_users(tmp_path: Path) -> None:
    code = """
import os, resource, time
def run():
    resource.setrlimit(resource.RLIMIT_NPROC, (10, 10))
    children = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(1000)
            children += 1
    except BlockingIOError:
        return children
"""

    async def scenario(stage: Stage) -> None:
        with contextlib.ExitStack() as neighbours:
            for _ in range(4):
                neighbours.enter_context(neighbour(CROWDED_UID))
            assert await outcome(stage, code, Confinement(Level.L3, uid=CROWDED_UID)) == 5
            assert await outcome(stage, code, Confinement(Level.L3, uid=OTHER_UID)) == 9

    play(tmp_path, scenario)


MOURNING = """
import os, signal, sys, threading, time
from towline_agent import prctl
def bear():
    parent = threading.get_native_id()
    if os.fork() == 0:
        prctl.signal_at_parents_end(signal.SIGKILL)
        os.write(1, b".")
        time.sleep(1000)
    os.read(0, 1)
mother = threading.Thread(target=bear)
mother.start()
mother.join()
print(os.WTERMSIG(os.wait()[1]), flush=True)
"""


def test_a_signal_at_the_parents_end_comes_at_the_end_of_a_thread() -> None:
    with subprocess.Popen([sys.executable, "-c", MOURNING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.read(1) == b"."
        parent.stdin.write(b".")
        parent.stdin.flush()
        assert int(parent.stdout.read()) == signal.SIGKILL


def test_a_plugin_survives_the_thread_that_asked_for_it_and_not_its_supervisor(tmp_path: Path) -> None:
    code = ESCAPE + "def run():\n    escape('a')\n    time.sleep(1000)"
    loop = asyncio.new_event_loop()
    begun: list[tuple[asyncio.Task[Exit], Output]] = []

    async def begin() -> None:
        stage = Stage(ProcessSupervisor.start(()), tmp_path)
        begun.append(stage.begin(stage.python(code)))
        await begun[0][1].lines(2)

    asking = threading.Thread(target=lambda: loop.run_until_complete(begin()))
    asking.start()
    asking.join()
    ((running, output),) = begun
    pids = pids_in(output.stdout.splitlines())
    assert len(alive(pids)) == 2
    os.kill(supervisor_pid(), signal.SIGKILL)
    ended = loop.run_until_complete(asyncio.wait_for(running, PATIENCE))
    loop.close()
    assert ended.reason is EndReason.SUPERVISOR_LOST
    assert alive(pids) == []


def test_a_kill_of_the_process_group_misses_who_has_left_it() -> None:
    code = ESCAPE + "escape('a')\ntime.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, process_group=0) as leader:
        assert leader.stdout is not None
        escaped = int(leader.stdout.readline().split()[1])
        os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()
        assert alive([escaped]) == [escaped]
        os.kill(escaped, signal.SIGKILL)
    await_death([escaped])


SPIKE = f"""
import subprocess, sys
def run():
    subprocess.run([sys.executable, "-S", "-c", "held = b'x' * {200 * MIB}"], check=True)
"""


def test_a_spike_between_two_looks_is_told_afterwards(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.python(SPIKE, memory_bytes=100 * MIB))
        assert ended.reason in (EndReason.EXITED, EndReason.MEMORY_LIMIT)  # by luck
        assert ended.peak_memory_bytes > 100 * MIB

    play(tmp_path, scenario)


@pytest.mark.skipif(not CONTAINS, reason="this host or this user has no groups that limit memory and processes")
def test_a_spike_never_gets_beyond_the_limit_of_a_group(tmp_path: Path) -> None:
    groups = cgroups.claim()

    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.python(SPIKE, memory_bytes=100 * MIB))
        assert ended.watch.kernel_kills
        assert ended.peak_memory_bytes <= 100 * MIB

    try:
        play(tmp_path, scenario, groups=groups)
    finally:
        groups.dissolve()


def test_landlock_by_itself_lets_udp_leave_and_names_be_seen(tmp_path: Path) -> None:
    if landlock.version() < landlock.TCP_VERSION:
        pytest.skip("this kernel's Landlock knows no network")
    hidden = tmp_path / "hidden"
    hidden.write_text("secret")
    code = """
import os, socket
from towline_agent.sandbox import landlock
def attempt(what):
    try:
        return what()
    except PermissionError:
        return "refused"
def run(config):
    landlock.restrict([("/usr", landlock.READ)], deny_tcp=True)
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    udp.connect(("127.0.0.1", config["udp"]))
    udp.send(b"x")
    return [attempt(lambda: tcp.connect(("127.0.0.1", config["tcp"]))), udp.recv(1).decode(),
            attempt(lambda: open(config["hidden"]).read()), os.stat(config["hidden"]).st_size]
"""

    async def scenario(stage: Stage) -> None:
        async with bait.laid_out(None) as laid:
            asked = {"config": {**laid, "hidden": str(hidden)}}
            assert await outcome(stage, code, Confinement(Level.L0), stdin=asked) == ["refused", "x", "refused", 6]

    play(tmp_path, scenario)


def test_landlock_is_asked_of_the_kernel_and_not_of_a_file() -> None:
    if os.path.exists("/sys/kernel/security/lsm"):
        pytest.skip("securityfs is mounted here")
    assert landlock.version() >= 1


def test_a_child_inspects_its_parent_until_that_refuses_and_can_still_measure_itself_and_start_others(
    tmp_path: Path,
) -> None:
    code = """
import ctypes, os, subprocess
import psutil
from towline_agent import prctl
libc = ctypes.CDLL(None)
def inspected():
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            read = len(open(f"/proc/{os.getppid()}/environ").read()) >= 0
        except PermissionError:
            read = False
        traced = libc.ptrace(0x4206, os.getppid(), None, None) == 0
        os.write(tell, bytes([read, traced]))
        os._exit(0)
    os.waitpid(child, 0)
    return [bool(each) for each in os.read(told, 2)]
def run(config):
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(*[config["uid"]] * 3)
        os.setresuid(*[config["uid"]] * 3)
    prctl.allow_inspection()
    before = inspected()
    prctl.refuse_inspection()
    me = psutil.Process()
    measured = [me.memory_info().rss > 0, me.num_fds() > 0, me.cpu_times().user >= 0]
    return [before, inspected(), measured, subprocess.run(["/bin/true"]).returncode]
"""

    async def scenario(stage: Stage) -> None:
        found = await outcome(stage, code, Confinement(Level.L0), stdin={"config": {"uid": UID}})
        assert found == [[True, True], [False, False], [True] * 3, 0]

    play(tmp_path, scenario)
