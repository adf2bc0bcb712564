"""The kernel's own count of what it killed for want of memory, as tables and for real."""

from pathlib import Path

import pytest
from supervisor_scenario import Stage, play
from test_supervisor_trees import supervisor_pid

from towline_agent import cgroups, oom_kills
from towline_agent.cgroup_files import Allowance, Controller
from towline_agent.execution import EndReason

MIB = 1024 * 1024
VMSTAT = "pgfault 5\noom_kill 3\npgmajfault 1\n"
V2 = "32 31 0:29 / {} rw - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 / {} rw - cgroup cgroup rw,memory\n"

CASES: dict[str, tuple[str, str, dict[str, str], int]] = {
    "no groups": ("", "0::/", {}, 3),
    "v2, own group": (V2, "0::/a/b", {"a/b/memory.events.local": "oom 1\noom_kill 2\n"}, 2),
    "v2, memory is counted further up": (V2, "0::/a/b", {"a/memory.events.local": "oom_kill 4\n"}, 4),
    "v1": (V1, "4:memory:/a", {"a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"}, 5),
    "v1, kernel that does not count": (V1, "4:memory:/a", {"a/memory.oom_control": "under_oom 0\n"}, 3),
}


@pytest.mark.parametrize(("kind", "member", "files", "expected"), CASES.values(), ids=CASES.keys())
def test_the_closest_count_is_taken(
    tmp_path: Path, kind: str, member: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "mountinfo").write_text(kind.format(tmp_path / "groups"))
    (tmp_path / "cgroup").write_text(f"{member}\n")
    (tmp_path / "vmstat").write_text(VMSTAT)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert oom_kills.count(oom_kills.counter(tmp_path, tmp_path / "vmstat")) == expected


def test_a_kernel_that_counts_nothing_has_killed_nobody(tmp_path: Path) -> None:
    assert oom_kills.count(tmp_path / "nowhere") == 0


HOG = """
import time
def run():
    while time.process_time() < 0.3:
        pass
    return len(b"x" * 300_000_000)
"""


def test_a_kill_for_the_memory_of_the_whole_agent_is_seen_without_groups_for_attempts(tmp_path: Path) -> None:
    """As in a container whose limit is below what its attempts may use together."""
    try:
        groups = cgroups.claim()
    except cgroups.Unavailable as reason:
        pytest.skip(f"no control groups on this host: {reason}")

    async def scenario(stage: Stage) -> None:
        container = groups.create("container", Allowance(memory_bytes=128 * MIB))
        whole = container.folders[Controller.MEMORY] / "memory.oom.group"
        if whole.exists():
            whole.write_text("0")
        container.add(supervisor_pid())
        ended, _ = await stage.run(stage.python(HOG, memory_bytes=1024 * MIB))
        assert (ended.reason, ended.watch.by_kernel, ended.watch.kills_around) == (EndReason.SIGNALED, False, 1)
        assert ended.fell_to_the_machine

    try:
        if Controller.MEMORY not in groups.folders:
            pytest.skip(f"no memory controller on this host: {groups.missing.get(Controller.MEMORY)}")
        play(tmp_path, scenario)
    finally:
        groups.dissolve()
