"""What an agent takes for free memory, by the groups around it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from towline_agent import cgroups
from towline_agent.cgroup_files import Allowance, Controller
from towline_agent.memory_room import free_bytes, surroundings, total_bytes

MIB = 1024 * 1024
MACHINE = 1000
UNLIMITED_V1 = "9223372036854771712"
V2 = "32 31 0:29 {root} {mount} rw - cgroup2 cgroup2 rw"
V1 = "32 31 0:29 {root} {mount} rw - cgroup cgroup rw,memory"
Tree = Mapping[str, Mapping[str, str]]
"""Files by folder below the mount."""


def v2(limit: str, use: str, cached: str = "inactive_file 0", high: str = "max") -> dict[str, str]:
    return {"memory.max": limit, "memory.current": use, "memory.stat": cached, "memory.high": high}


def v1(limit: str, use: str, cached: str = "total_inactive_file 0") -> dict[str, str]:
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": use, "memory.stat": cached}


CASES: dict[str, tuple[str, str, str, Tree, tuple[int, int]]] = {
    "v2, own limit": (V2, "/", "0::/a", {"a": v2("400\n", "100\n")}, (400, 300)),
    "v2, no limit": (V2, "/", "0::/a", {"a": v2("max\n", "100\n")}, (1000, 1000)),
    "v2, above the machine": (V2, "/", "0::/a", {"a": v2("4000", "100")}, (1000, 1000)),
    "v2, limit further up": (V2, "/", "0::/a/b/c", {"a": v2("300", "250"), "a/b/c": v2("200", "20")}, (200, 50)),
    "v2, throttled before": (V2, "/", "0::/a", {"a": v2("400", "100", high="350")}, (350, 250)),
    "v2, cache can be had": (
        V2,
        "/",
        "0::/a",
        {"a": v2("400", "390", "inactive_file 200\nactive_file 100")},
        (400, 310),
    ),
    "v2, passed": (V2, "/", "0::/a", {"a": v2("400", "450")}, (400, 0)),
    "v2, container that sees itself as the root": (V2, "/", "0::/", {"": v2("400", "100")}, (400, 300)),
    "v2, container that sees a part": (V2, "/docker/ab", "0::/docker/ab/c", {"": v2("400", "100")}, (400, 300)),
    "v2, beside what is seen": (V2, "/docker/ab", "0::/elsewhere", {"": v2("400", "100")}, (1000, 1000)),
    "v1, own limit": (V1, "/", "4:memory:/a", {"a": v1("400", "100")}, (400, 300)),
    "v1, no limit": (V1, "/", "4:memory:/a", {"a": v1(UNLIMITED_V1, "100")}, (1000, 1000)),
    "v1, limit further up": (
        V1,
        "/",
        "4:memory:/a/b",
        {"a": v1("400", "100"), "a/b": v1(UNLIMITED_V1, "9")},
        (400, 300),
    ),
    "v1, cache can be had": (V1, "/", "4:memory:/a", {"a": v1("400", "390", "total_active_file 100")}, (400, 110)),
    "another controller": (V1.replace("memory", "pids"), "/", "4:pids:/a", {"a": v1("400", "100")}, (1000, 1000)),
    "no use known": (V2, "/", "0::/a", {"a": {"memory.max": "400"}}, (400, 1000)),
}


@pytest.mark.parametrize(("kind", "root", "member", "tree", "expected"), CASES.values(), ids=CASES.keys())
def test_the_least_of_machine_and_groups_counts(
    tmp_path: Path, kind: str, root: str, member: str, tree: Tree, expected: tuple[int, int]
) -> None:
    (tmp_path / "mountinfo").write_text(kind.format(root=root, mount=tmp_path / "groups") + "\n")
    (tmp_path / "cgroup").write_text(f"{member}\n")
    for place, files in tree.items():
        folder = tmp_path / "groups" / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    around = surroundings(tmp_path)
    assert (total_bytes(around, MACHINE), free_bytes(around, MACHINE)) == expected


def test_a_host_without_groups_has_what_the_machine_has(tmp_path: Path) -> None:
    assert surroundings(tmp_path) == ()
    assert free_bytes((), MACHINE) == total_bytes((), MACHINE) == MACHINE


ASK = """
import json, psutil
from towline_agent.memory_room import measure_free, surroundings, total_bytes
around = surroundings()
held = b"x" * 20_000_000
print(json.dumps([total_bytes(around, psutil.virtual_memory().total), measure_free(around)]))
"""


def test_a_limited_group_of_this_host_is_seen_from_inside() -> None:
    try:
        groups = cgroups.claim()
    except cgroups.Unavailable as reason:
        pytest.skip(f"no control groups on this host: {reason}")
    try:
        if Controller.MEMORY not in groups.folders:
            pytest.skip(f"no memory controller on this host: {groups.missing.get(Controller.MEMORY)}")
        group = groups.create("limited", Allowance(memory_bytes=256 * MIB))
        join = f"open({str(group.folders[Controller.MEMORY] / 'cgroup.procs')!r}, 'w').write('0')\n"
        done = subprocess.run([sys.executable, "-c", join + ASK], capture_output=True, text=True, check=True)
        total, free = map(int, done.stdout.strip("[]\n").split(","))
        assert total == 256 * MIB
        assert 0 < free < 236 * MIB
        assert group.remove()
    finally:
        groups.dissolve()


def test_what_is_measured_here_is_no_more_than_the_machine_has() -> None:
    around = surroundings()
    assert 0 < total_bytes(around, psutil.virtual_memory().total) <= psutil.virtual_memory().total
