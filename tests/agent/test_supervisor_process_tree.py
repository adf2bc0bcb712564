"""Looking at process trees, by the kernel's lists of children and without them."""

import os
import subprocess
import sys
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
    assert process_tree.look(gone.pid, 0) == process_tree.Look()
    process_tree.kill(gone.pid)


def test_only_a_suspect_sum_is_measured_exactly(family: list[int]) -> None:
    exact = sum(psutil.Process(pid).memory_full_info().pss for pid in family[1:])
    assert process_tree.look(family[0], 2**40).memory_bytes > exact
    assert process_tree.look(family[0], 0).memory_bytes <= process_tree.look(family[0], 2**40).memory_bytes


def test_threads_and_the_time_of_those_that_ended_are_counted() -> None:
    code = """
import subprocess, sys, threading, time
subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass"])
for _ in range(3):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print(flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = process_tree.look(os.getpid(), 2**40)
        process.kill()
    assert seen.cpu_seconds >= 0.3
    assert seen.tasks >= 4
