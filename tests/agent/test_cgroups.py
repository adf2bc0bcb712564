"""Control groups: the real ones of this host, and what a host without them says."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline_agent import cgroups
from towline_agent.cgroup_files import Allowance, Controller
from towline_agent.cgroups import Hierarchy, Unavailable

MIB = 1024 * 1024


@pytest.fixture
def hierarchy() -> Iterator[Hierarchy]:
    try:
        claimed = cgroups.claim()
    except Unavailable as reason:
        pytest.skip(f"no control groups on this host: {reason}")
    yield claimed
    claimed.dissolve()
    assert not [
        folder for folder in claimed.folders.values() if folder.exists() and Controller.MEMORY in claimed.folders
    ]


def needs(hierarchy: Hierarchy, controller: Controller) -> None:
    if controller not in hierarchy.folders:
        pytest.skip(f"no {controller} controller on this host: {hierarchy.missing.get(controller)}")


JOIN = "import os, sys\nfor procs in sys.argv[2:]:\n    open(procs, 'w').write('0')\n"


def run_in(group: cgroups.Group, code: str) -> subprocess.Popen[str]:
    """Python code in a process that has joined the group first."""
    entrances = sorted({str(folder / "cgroup.procs") for folder in group.folders.values()})
    command = [sys.executable, "-c", JOIN + code, "-", *entrances]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_memory_beyond_the_limit_is_killed_by_the_kernel_and_counted(hierarchy: Hierarchy) -> None:
    needs(hierarchy, Controller.MEMORY)
    group = hierarchy.create("hog", Allowance(memory_bytes=64 * MIB))
    with run_in(group, "held = bytearray(200_000_000)\nprint(len(held))") as hog:
        output, _ = hog.communicate(timeout=60)
    counted = group.read()
    assert (hog.returncode, output) == (-signal.SIGKILL, "")
    assert counted.oom_kills == 1
    assert counted.limit_hits >= 1
    assert counted.peak_bytes is not None
    assert 60 * MIB < counted.peak_bytes <= 64 * MIB
    assert group.remove()


def test_memory_below_the_limit_is_left_alone_and_file_cache_does_not_count(
    hierarchy: Hierarchy, tmp_path: Path
) -> None:
    needs(hierarchy, Controller.MEMORY)
    group = hierarchy.create("frugal", Allowance(memory_bytes=96 * MIB))
    code = f"""
held = bytearray(20_000_000)
with open({str(tmp_path / "large")!r}, "wb") as large:
    for _ in range(200):
        large.write(bytes(1_000_000))
"""
    with run_in(group, code + "print('ready', flush=True)\nimport time\ntime.sleep(1000)") as frugal:
        assert frugal.stdout is not None
        assert frugal.stdout.readline() == "ready\n"
        counted = group.read()
        group.kill()
    assert counted.oom_kills == 0
    assert counted.memory_bytes is not None
    assert counted.memory_bytes < 60 * MIB
    assert group.remove()


def test_forks_beyond_the_limit_are_refused_and_counted(hierarchy: Hierarchy) -> None:
    needs(hierarchy, Controller.PIDS)
    group = hierarchy.create("bomb", Allowance(processes=20))
    bomb = """
children = 0
try:
    while True:
        if os.fork() == 0:
            import time
            time.sleep(1000)
        children += 1
except BlockingIOError:
    print(children, flush=True)
os.kill(os.getpid(), 9)
"""
    with run_in(group, bomb) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "19\n"
        process.wait(timeout=60)
        assert group.read().refused_processes == 1
        assert len(group.pids()) == 19
        assert len(group.kill()) == 19
    assert group.pids() == set()
    assert group.remove()


def test_kill_reaches_who_has_left_session_and_parent(hierarchy: Hierarchy) -> None:
    group = hierarchy.create("escape", Allowance(memory_bytes=256 * MIB, processes=50))
    code = """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
"""
    with run_in(group, code) as process:
        assert process.stdout is not None
        escaped = int(process.stdout.readline())
        assert group.pids() == {process.pid, escaped}
        assert group.kill() == {process.pid, escaped}
    assert group.remove()


def test_group_with_processes_is_not_removed(hierarchy: Hierarchy) -> None:
    group = hierarchy.create("busy", Allowance())
    with run_in(group, "print('ready', flush=True)\nimport time\ntime.sleep(1000)") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not group.remove()
        group.kill()
    assert group.remove()
    assert group.pids() == set()
    assert group.read().oom_kills == 0


def test_processor_time_of_a_group_is_counted_and_its_share_is_limited(hierarchy: Hierarchy) -> None:
    needs(hierarchy, Controller.CPU)
    group = hierarchy.create("spin", Allowance(cpus=0.2))
    code = (
        "import time\nbegun = time.monotonic()\nwhile time.process_time() < 0.3: pass\nprint(time.monotonic() - begun)"
    )
    with run_in(group, code) as process:
        output, _ = process.communicate(timeout=60)
    used = group.read().cpu_seconds
    assert used is None or used >= 0.25
    assert float(output) > 0.8
    assert group.remove()


CLAIM = """
import subprocess, sys
from towline_agent import cgroups
from towline_agent.cgroup_files import Allowance
hierarchy = cgroups.claim()
group = hierarchy.create("left", Allowance())
left = subprocess.Popen(["sleep", "1000"])
group.add(left.pid)
print(left.pid, *set(group.folders.values()), flush=True)
sys.stdin.read()
"""


def test_what_a_killed_agent_left_is_cleared_away_and_nothing_of_a_living_one(hierarchy: Hierarchy) -> None:
    others = hierarchy.create("others", Allowance())
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        pid, *folders = agent.stdout.readline().split()
        assert all(Path(folder).exists() for folder in folders)
        agent.kill()
        agent.wait()
        assert all(int(pid) in cgroups.Group({Controller.KILL: Path(folder)}, {}).pids() for folder in folders)
        cgroups.claim().dissolve()
        assert not any(Path(folder).exists() for folder in folders)
    assert all(folder.exists() for folder in others.folders.values())
    others.remove()


def test_hierarchy_travels_to_another_process(hierarchy: Hierarchy) -> None:
    copy = Hierarchy.decode(hierarchy.encode())
    assert (copy.folders, copy.versions) == (hierarchy.folders, hierarchy.versions)


class PlayedHost:
    """The files by which a process learns of its groups, as plain files."""

    def __init__(self, folder: Path, kind: str, options: str, group: str) -> None:
        self.mount = folder / "cgroup"
        self.process = folder / "self"
        self.own = self.mount / group.removeprefix("/")
        self.own.mkdir(parents=True)
        self.process.mkdir()
        number = 0 if kind == "cgroup2" else 4
        names = "" if kind == "cgroup2" else options.removeprefix("rw,")
        (self.process / "mountinfo").write_text(f"32 31 0:29 / {self.mount} rw - {kind} {kind} {options}\n")
        (self.process / "cgroup").write_text(f"{number}:{names}:{group}\n")


def test_v2_hands_its_controllers_down_and_makes_room_for_that(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path, "cgroup2", "rw", "/service")
    (host.own / "cgroup.controllers").write_text("cpu memory pids io\n")
    (host.own / "cgroup.type").write_text("domain\n")
    (host.own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    with pytest.raises(Unavailable, match="No such file"):  # plain files do not appear by themselves
        cgroups.claim(host.process)


def test_v2_group_shared_with_others_is_left_as_it_is(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path, "cgroup2", "rw", "/session")
    (host.own / "cgroup.controllers").write_text("memory pids\n")
    (host.own / "cgroup.type").write_text("domain\n")
    (host.own / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    with pytest.raises(Unavailable, match="1 other processes are in the agent's group"):
        cgroups.claim(host.process)
    assert not [*host.own.glob("towline-*")]


def test_host_without_groups_says_so(tmp_path: Path) -> None:
    process = tmp_path / "self"
    process.mkdir()
    (process / "mountinfo").write_text("1 0 0:1 / / rw - ext4 /dev/vda rw\n")
    (process / "cgroup").write_text("0::/\n")
    with pytest.raises(Unavailable, match="no memory controller is mounted"):
        cgroups.claim(process)
    with pytest.raises(Unavailable, match="cannot be read"):
        cgroups.claim(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_group_of_another_user_is_not_available(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path, "cgroup", "rw,memory", "/service")
    host.own.chmod(0o555)
    with pytest.raises(Unavailable, match="Permission denied"):
        cgroups.claim(host.process)
