"""Calls that may hang: how many there are at a time, and that nobody waits for their threads."""

import subprocess
import sys
import threading

import pytest

from towline_controlplane.call_threads import CallThreads


def test_results_and_errors_come_back() -> None:
    threads = CallThreads(2, "test")
    assert threads.submit(divmod, 7, 2).result(20) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(20)
    assert list(threads.map(str, range(50))) == [str(number) for number in range(50)]
    threads.shutdown()
    with pytest.raises(RuntimeError, match="no more calls"):
        threads.submit(str)


def test_so_many_run_at_a_time_and_the_others_wait_in_line() -> None:
    threads, gate, running = CallThreads(2, "test"), threading.Event(), threading.Semaphore(0)

    def call(number: int) -> tuple[int, str]:
        running.release()
        gate.wait(20)
        return number, threading.current_thread().name

    futures = [threads.submit(call, number) for number in range(6)]
    assert all(running.acquire(timeout=20) for _ in range(2))
    assert not running.acquire(blocking=False)
    assert futures[-1].cancel()
    gate.set()
    done = [future.result(20) for future in futures[:-1]]
    assert [number for number, _ in done] == list(range(5))
    assert {name for _, name in done} == {"test-1", "test-2"}
    threads.shutdown()


def test_the_end_of_the_process_waits_for_no_call() -> None:
    script = (
        "import threading; from towline_controlplane.call_threads import CallThreads;"
        "CallThreads(1, 'test').submit(threading.Event().wait); print('over')"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "over\n"
