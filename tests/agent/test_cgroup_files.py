"""What the kernel's control group files mean, as tables."""

import pytest

from towline_agent.cgroup_files import (
    Allowance,
    Controller,
    Mount,
    Reading,
    counters,
    folder,
    memberships,
    mounts,
    reading,
    settings,
)

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
36 31 0:33 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
38 31 0:35 /docker/ab /mnt/with\\040space rw,relatime - cgroup2 cgroup2 rw
"""


def test_mounts_are_told_apart() -> None:
    memory, processor, unified = mounts(HYBRID)
    assert (memory.version, memory.path) == (1, "/sys/fs/cgroup/memory")
    assert "memory" in memory.controllers
    assert {"cpu", "cpuacct"} <= processor.controllers
    assert unified == Mount(2, "/mnt/with space", "/docker/ab")


def test_memberships_by_controller() -> None:
    text = "4:memory:/a/b\n1:cpu,cpuacct:/\n9:name=systemd:/x\n0::/user.slice/we:ird\n"
    assert memberships(text) == {
        "memory": "/a/b",
        "cpu": "/",
        "cpuacct": "/",
        "name=systemd": "/x",
        "": "/user.slice/we:ird",
    }


@pytest.mark.parametrize(
    ("root", "group", "expected"),
    [
        ("/", "/", "/sys/fs/cgroup"),
        ("/", "/a/b", "/sys/fs/cgroup/a/b"),
        ("/docker/ab", "/docker/ab/c", "/sys/fs/cgroup/c"),
        ("/docker/ab", "/elsewhere", None),
        ("/", "/../outside", None),
    ],
)
def test_folder_of_a_group(root: str, group: str, expected: str | None) -> None:
    assert folder(Mount(2, "/sys/fs/cgroup", root), group) == expected


def test_counters_pass_over_what_is_no_number() -> None:
    assert counters("oom 1\noom_kill 2\nmax max\n\nodd\n") == {"oom": 1, "oom_kill": 2}


@pytest.mark.parametrize(
    ("version", "controller", "allowance", "expected"),
    [
        (2, Controller.MEMORY, Allowance(), []),
        (
            2,
            Controller.MEMORY,
            Allowance(memory_bytes=1024),
            [("memory.max", "1024"), ("memory.swap.max", "0"), ("memory.oom.group", "1")],
        ),
        (
            1,
            Controller.MEMORY,
            Allowance(memory_bytes=1024),
            [("memory.limit_in_bytes", "1024"), ("memory.memsw.limit_in_bytes", "1024"), ("memory.swappiness", "0")],
        ),
        (1, Controller.PIDS, Allowance(processes=7), [("pids.max", "7")]),
        (2, Controller.PIDS, Allowance(processes=7), [("pids.max", "7")]),
        (2, Controller.CPU, Allowance(cpus=1.5), [("cpu.max", "150000 100000")]),
        (2, Controller.CPU, Allowance(cpus=0.0001), [("cpu.max", "1000 100000")]),
        (1, Controller.CPU, Allowance(cpus=0.5), [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")]),
        (1, Controller.CPU, Allowance(), []),
        (2, Controller.KILL, Allowance(memory_bytes=1, processes=1, cpus=1), []),
    ],
)
def test_settings(version: int, controller: Controller, allowance: Allowance, expected: list[tuple[str, str]]) -> None:
    assert settings(version, controller, allowance) == expected


V2 = {Controller.MEMORY: 2, Controller.PIDS: 2, Controller.KILL: 2}
V1 = {Controller.MEMORY: 1, Controller.PIDS: 1}


@pytest.mark.parametrize(
    ("versions", "files", "expected"),
    [
        (V2, {}, Reading(memory_bytes=0)),
        ({Controller.KILL: 2}, {"cpu.stat": "usage_usec 1500000\nuser_usec 1\n"}, Reading(cpu_seconds=1.5)),
        (
            V2,
            {
                "memory.stat": "anon 100\nfile 5000\nshmem 20\n",
                "memory.peak": "9000\n",
                "memory.events": "low 0\nmax 40\noom 3\noom_kill 2\n",
                "pids.events": "max 4\n",
                "cpu.stat": "usage_usec 250000\n",
            },
            Reading(120, 9000, 0.25, oom_kills=2, limit_hits=3, refused_processes=4),
        ),
        (
            V1,
            {
                "memory.stat": "cache 5000\nrss 1\nshmem 1\ntotal_rss 100\ntotal_shmem 20\n",
                "memory.max_usage_in_bytes": "999000\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
                "memory.limit_in_bytes": "1000000\n",
                "pids.events": "max 4\n",
                "cpuacct.usage": "250000000\n",
            },
            Reading(120, 999000, 0.25, oom_kills=2, limit_hits=1, refused_processes=4),
        ),
    ],
)
def test_readings(versions: dict[Controller, int], files: dict[str, str], expected: Reading) -> None:
    assert reading(versions, files) == expected
