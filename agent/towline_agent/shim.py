"""The parent of one attempt's processes: whatever they fork, double-fork or detach becomes its child in the end.

It decides nothing. The supervisor tells it by signals to ask the tree to stop or to kill it; when the main process has
ended it kills what is left, and it ends itself only when it has no child any more, which proves that the tree is gone.
"""

import json
import os
import resource
import select
import signal
from collections.abc import Sequence
from typing import NoReturn

from towline_agent import plugin_process, prctl, process_tree
from towline_agent.cgroup_folders import THAW_V1
from towline_agent.cgroups import Doors
from towline_agent.execution import Launch
from towline_agent.sandbox import confine
from towline_agent.sandbox.confine import Walls

STOP = signal.SIGUSR1
KILL = signal.SIGUSR2

_ANY_CHILD = os.WNOHANG | 0x40000000  # __WALL: also children made by clone with another signal than SIGCHLD
_MOST_REPORTED = 500
_THAW_DESCRIPTOR = plugin_process.REPORT_DESCRIPTOR + 1
_RESCAN_SECONDS = 0.01


def watch_attempt(
    launch: Launch, descriptors: Sequence[int], report: int, walls: Walls | None, doors: Doors
) -> NoReturn:
    """Runs the attempt below this process, writes one line of JSON about it to `report` and ends.

    `doors` lead into the attempt's control group, which this process stays out of. Expects STOP, KILL and
    SIGCHLD to be blocked.
    """
    try:
        os.setsid()
        prctl.adopt_orphans()
        prctl.signal_at_parents_end(KILL)
        os.dup2(report, plugin_process.REPORT_DESCRIPTOR, inheritable=False)
        if _is_heard() and _is_enclosed(launch, walls):
            _run(launch, descriptors, walls, doors)
    except OSError as error:
        plugin_process.report_failure("spawnFailure", error, launch)
    finally:
        os._exit(os.EX_OK)


def _is_heard() -> bool:
    """Whether the supervisor still lives: before its end could be signalled it may have ended."""
    poll = select.poll()
    poll.register(plugin_process.REPORT_DESCRIPTOR, 0)
    return not poll.poll(0)


def _is_enclosed(launch: Launch, walls: Walls | None) -> bool:
    try:
        confine.enclose(launch, walls)
    except OSError as error:
        plugin_process.report_failure("sandboxFailure", error, launch)
        return False
    return True


def _run(launch: Launch, descriptors: Sequence[int], walls: Walls | None, doors: Doors) -> None:
    shim = os.getpid()
    main = os.fork()
    if main == 0:
        plugin_process.become_plugin(launch, descriptors, shim, walls, doors.entrances)
    if doors.thaw is not None:
        os.dup2(doors.thaw, _THAW_DESCRIPTOR, inheritable=False)
    os.closerange(_THAW_DESCRIPTOR + (doors.thaw is not None), plugin_process.LARGEST_DESCRIPTOR)
    status = _wait_for(main, can_thaw=doors.thaw is not None)
    killed = _kill_the_rest()
    os.write(plugin_process.REPORT_DESCRIPTOR, _report(status, killed))


def _wait_for(main: int, *, can_thaw: bool) -> int:
    while True:
        match signal.sigwait({STOP, KILL, signal.SIGCHLD}):
            case signal.SIGCHLD:
                status = _reap(main)
                if status is not None:
                    return status
            case number:
                if can_thaw and number == KILL:
                    os.write(_THAW_DESCRIPTOR, THAW_V1.encode())
                _signal_group(main, signal.SIGTERM if number == STOP else signal.SIGKILL)


def _signal_group(main: int, number: signal.Signals) -> None:
    try:
        os.killpg(main, number)
    except ProcessLookupError:  # it has not made its session yet
        os.kill(main, number)


def _reap(main: int) -> int | None:
    """Reaps every child that has ended; returns the status of `main` if it was among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, _ANY_CHILD)
        except ChildProcessError:
            return found
        if pid == main:
            found = status
        elif pid == 0:
            return found


def _kill_the_rest() -> set[int]:
    killed: set[int] = set()
    while _has_children():
        for pid in process_tree.descendants(os.getpid()):
            process_tree.kill(pid)
            killed.add(pid)
        signal.sigtimedwait({signal.SIGCHLD}, _RESCAN_SECONDS)
    return killed


def _has_children() -> bool:
    while True:
        try:
            pid, _ = os.waitpid(-1, _ANY_CHILD)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def _report(status: int, killed: set[int]) -> bytes:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = {
        "status": status,
        "cpuSeconds": used.ru_utime + used.ru_stime,
        "peakMemoryBytes": used.ru_maxrss * 1024,
        "killed": sorted(killed)[:_MOST_REPORTED],
    }
    return json.dumps(report).encode() + b"\n"
