"""Looking at process trees, by the kernel's lists of children and without them."""

import os
import subprocess
from collections.abc import Generator

import psutil
import pytest

from towline_agent import process_tree


@pytest.fixture
def family() -> Generator[list[int]]:
    """A shell with a child and a grandchild."""
    script = "sh -c 'sleep 1000 & echo $!; wait' & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        below = [int(shell.stdout.readline()) for _ in range(2)]
        yield [shell.pid, *below]
        for pid in [shell.pid, *below]:
            process_tree.kill(pid)


@pytest.mark.parametrize("has_children_files", [True, False])
def test_descendants_are_found(family: list[int], monkeypatch: pytest.MonkeyPatch, has_children_files: bool) -> None:
    monkeypatch.setattr(process_tree, "_HAS_CHILDREN_FILES", has_children_files)
    assert sorted(process_tree.descendants(family[0])) == sorted(family[1:])
    assert set(family) <= set(process_tree.descendants(os.getpid()))


@pytest.mark.parametrize("has_children_files", [True, False])
def test_process_that_is_gone_has_no_children_and_no_memory(
    monkeypatch: pytest.MonkeyPatch, has_children_files: bool
) -> None:
    monkeypatch.setattr(process_tree, "_HAS_CHILDREN_FILES", has_children_files)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert process_tree.descendants(gone.pid) == []
    assert process_tree.memory_bytes([gone.pid], 0) == 0
    process_tree.kill(gone.pid)


def test_only_a_suspect_sum_is_measured_exactly() -> None:
    process = psutil.Process()
    assert process_tree.memory_bytes([process.pid], 2**40) >= process.memory_full_info().pss
    exact = process_tree.memory_bytes([process.pid], 0)
    assert exact <= process.memory_info().rss
