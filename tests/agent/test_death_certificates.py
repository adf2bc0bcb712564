"""Real processes that die in every way, with control groups and without: what is said to have killed them."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from supervisor_scenario import Output, Stage, play

from towline.v1.agent_service_pb2 import AttemptResult, Lease
from towline.v1.run_pb2 import Evidence, Failure
from towline_agent import cgroups
from towline_agent.certificate import bounded_lines
from towline_agent.cgroup_files import Controller
from towline_agent.cgroups import Hierarchy, Unavailable
from towline_agent.execution import Exit, Launch, OutputStream
from towline_agent.outcomes import Circumstances, decide

MIB = 1024 * 1024
T, P = Failure.TRANSIENT, Failure.PERMANENT
E = Evidence


@pytest.fixture(params=["groups", "sampling"])
def groups(request: pytest.FixtureRequest) -> Iterator[Hierarchy | None]:
    if request.param == "sampling":
        yield None
        return
    try:
        claimed = cgroups.claim()
    except Unavailable as reason:
        pytest.skip(f"no control groups on this host: {reason}")
    if not {Controller.MEMORY, Controller.PIDS} <= claimed.folders.keys():
        claimed.dissolve()
        pytest.skip(f"control groups limit too little on this host: {dict(claimed.missing)}")
    yield claimed
    claimed.dissolve()


def certify(launch: Launch, end: Exit, output: Output) -> AttemptResult:
    around = Circumstances(
        timeout_seconds=launch.timeout_seconds,
        memory_bytes=launch.memory_bytes,
        output_bytes=launch.output_bytes,
        last_output=bounded_lines(output.stdout),
        last_errors=bounded_lines(output.stderr),
        cpu_seconds=launch.cpu_seconds,
        processes=launch.processes,
    )
    return decide(Lease(run_id="r", node_id="n"), end, around)


def kill_main(output: Output) -> None:
    os.kill(int(output.stdout.split()[0]), signal.SIGKILL)


@dataclass(frozen=True)
class Death:
    """A program, its limits, what is done to it once it has printed a line, and what is to be said of its end."""

    code: str
    cause: "Evidence.Cause"
    kind: "Failure.Class"
    sender: "Evidence.Sender" = E.SENDER_UNSPECIFIED
    signals: frozenset[str] = frozenset({""})
    timeout: "Evidence.Timeout" = E.TIMEOUT_UNSPECIFIED
    limits: dict[str, Any] = field(default_factory=dict[str, Any])
    done_to_it: Callable[[Output], None] | None = None


FORK_FOR_EVER = """
import os, time
def run():
    while True:
        try:
            if os.fork() == 0:
                time.sleep(1000)
        except BlockingIOError:
            time.sleep(1000)
"""
SPIN = "def run():\n    while True:\n        pass"
HOG = """
import time
def run():
    held = []
    while True:
        held.append(bytearray(4_000_000))
        time.sleep(0.005)
"""
HOG_IN_A_CHILD = """
import subprocess, sys
def run():
    code = "import time\\nheld = []\\nwhile True: held.append(bytearray(4_000_000)); time.sleep(0.005)"
    subprocess.run([sys.executable, "-c", code], check=True)
"""
KILL, TERM = frozenset({"SIGKILL"}), frozenset({"SIGTERM", "SIGKILL"})
PRINT_PID = "import os, time, sys\ndef run():\n    print(os.getpid(), flush=True)\n"

DEATHS = {
    "killed from outside": Death(
        PRINT_PID + "    time.sleep(1000)", E.SIGNAL, T, E.OUTSIDE, KILL, done_to_it=kill_main
    ),
    "own abort": Death("import os\ndef run():\n    os.abort()", E.CRASH, P, E.ITSELF, frozenset({"SIGABRT"})),
    "segfault": Death(
        "import ctypes\ndef run():\n    ctypes.string_at(0)", E.CRASH, P, E.ITSELF, frozenset({"SIGSEGV"})
    ),
    "memory": Death(HOG, E.MEMORY_LIMIT, P, limits={"memory_bytes": 100 * MIB}, signals=KILL),
    "memory of a child": Death(
        HOG_IN_A_CHILD, E.MEMORY_LIMIT, P, limits={"memory_bytes": 100 * MIB}, signals=KILL | {""}
    ),
    "timeout, deaf to SIGTERM": Death(
        "import signal, time\ndef run():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(1000)",
        *(E.WALL_TIMEOUT, T, E.AGENT, KILL, E.WALL),
        limits={"timeout_seconds": 0.5, "kill_grace_seconds": 0.2},
    ),
    "timeout, stopped": Death(
        PRINT_PID + "    os.kill(os.getpid(), 19)",
        *(E.WALL_TIMEOUT, T, E.AGENT, KILL, E.WALL),
        limits={"timeout_seconds": 0.5, "kill_grace_seconds": 0.2},
    ),
    "fork bomb": Death(FORK_FOR_EVER, E.PROCESS_LIMIT, P, E.AGENT, KILL, limits={"processes": 40}),
    "file too large": Death(
        "def run():\n    open('large', 'wb').write(bytes(3_000_000))",
        *(E.FILE_LIMIT, P),
        limits={"file_bytes": 1_000_000},
    ),
    "processor time": Death(
        SPIN, E.CPU_LIMIT, P, signals=TERM | {"SIGXCPU"}, timeout=E.CPU, limits={"cpu_seconds": 1.0}
    ),
    "result too large": Death("def run():\n    return 'x' * 5000", E.OUTPUT_LIMIT, P, limits={"output_bytes": 1000}),
    "result that is no JSON": Death("def run():\n    return {1, 2}", E.INVALID_OUTPUT, P),
    "error of the plugin": Death("def run():\n    raise ValueError('no')", E.PLUGIN_ERROR, P),
    "exit code": Death("import sys\ndef run():\n    sys.exit(3)", E.EXIT_CODE, P),
    "too many open files": Death(
        "def run():\n    return [open('/dev/null') for _ in range(100)]", E.PLUGIN_ERROR, P, limits={"open_files": 20}
    ),
}


@pytest.mark.parametrize("name", DEATHS)
def test_what_is_said_of_a_death(tmp_path: Path, groups: Hierarchy | None, name: str) -> None:
    death = DEATHS[name]

    async def scenario(stage: Stage) -> None:
        launch = stage.python(death.code, **death.limits)
        running, output = stage.begin(launch)
        if death.done_to_it is not None:
            await output.lines(1)
            death.done_to_it(output)
        async with asyncio.timeout(60):
            end = await running
        result = certify(launch, end, output)
        told = result.evidence
        assert E.Cause.Name(told.cause) == E.Cause.Name(death.cause), result
        assert (getattr(result.failure, "class"), told.timeout) == (death.kind, death.timeout)
        assert told.signal_name in death.signals
        if death.sender:
            assert told.sender == death.sender
        assert told.HasField("exit_code") == (told.signal == 0)
        assert (told.memory_limit_bytes, told.processes_left) == (launch.memory_bytes, 0)
        assert told.memory_enforcement == (E.SAMPLED if groups is None else E.CGROUP)
        assert result.failure.message
        assert result.failure.cause

    play(tmp_path, scenario, groups=groups)
    assert [child for child in psutil.Process().children(recursive=True) if child.name().startswith("python")] == []


def test_memory_is_sampled_to_the_end_and_the_peak_told(tmp_path: Path, groups: Hierarchy | None) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.python(HOG.replace("0.005", "0.02"), memory_bytes=150 * MIB)
        end, output = await stage.run(launch)
        told = certify(launch, end, output).evidence
        offsets = [each.offset.ToTimedelta().total_seconds() for each in told.samples]
        assert len(offsets) >= 2
        assert offsets == sorted(offsets)
        assert offsets[-1] <= end.elapsed_seconds
        assert told.samples[-1].memory_bytes > told.samples[0].memory_bytes
        assert told.sample_interval.ToTimedelta().total_seconds() == 0.1
        assert told.peak_memory_bytes > 100 * MIB
        assert (told.sender == E.KERNEL) == (groups is not None)
        if groups is not None:
            assert told.peak_memory_bytes <= launch.memory_bytes

    play(tmp_path, scenario, groups=groups)


def test_last_lines_of_both_streams_are_kept(tmp_path: Path, groups: Hierarchy | None) -> None:
    script = "for i in $(seq 30); do echo out $i; done; echo oops >&2; exit 4"

    async def scenario(stage: Stage) -> None:
        launch = stage.shell(script)
        end, output = await stage.run(launch)
        told = certify(launch, end, output).evidence
        assert [*told.last_stdout] == [f"out {number}" for number in range(11, 31)]
        assert [*told.last_stderr] == ["oops"]
        assert told.exit_code == 4

    play(tmp_path, scenario, groups=groups)


def test_flood_of_output_kills_nobody(tmp_path: Path, groups: Hierarchy | None) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("head -c 20000000 /dev/zero | tr '\\0' 'x'; echo null >&3")
        end, output = await stage.run(launch)
        assert len(output.streams[OutputStream.STDOUT]) == 20_000_000
        result = certify(launch, end, output)
        assert result.outcome == AttemptResult.SUCCEEDED
        assert not result.HasField("evidence")

    play(tmp_path, scenario, groups=groups)


def test_program_that_finds_the_disk_full_says_so(tmp_path: Path, groups: Hierarchy | None) -> None:
    async def scenario(stage: Stage) -> None:
        for launch in (
            stage.shell("cat /etc/passwd > /dev/full"),
            stage.python("import pathlib\ndef run():\n    pathlib.Path('/dev/full').write_text('data')"),
        ):
            end, output = await stage.run(launch)
            result = certify(launch, end, output)
            assert (result.evidence.cause, result.failure.code) == (E.DISK_FULL, "DISK_FULL")
            assert getattr(result.failure, "class") == T

    play(tmp_path, scenario, groups=groups)


def test_whatever_left_its_parents_is_dead_and_counted(tmp_path: Path, groups: Hierarchy | None) -> None:
    script = "for i in 1 2 3; do setsid sleep 1000 & done; exit 3"

    async def scenario(stage: Stage) -> None:
        launch = stage.shell(script)
        end, output = await stage.run(launch)
        told = certify(launch, end, output).evidence
        assert (told.killed_processes, told.processes_left) == (3, 0)
        assert not [pid for pid in end.killed if psutil.pid_exists(pid)]

    play(tmp_path, scenario, groups=groups)


def test_killed_shim_leaves_nothing_in_the_group(tmp_path: Path, groups: Hierarchy | None) -> None:
    code = "import os, signal, time\ndef run():\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(1000)"

    async def scenario(stage: Stage) -> None:
        launch = stage.python(code)
        end, output = await stage.run(launch)
        told = certify(launch, end, output).evidence
        assert (told.cause, told.processes_left) == (E.SIGNAL, 0)

    play(tmp_path, scenario, groups=groups)
    if groups is not None:
        assert not [child for folder in set(groups.folders.values()) for child in folder.iterdir() if child.is_dir()]


def test_group_cannot_be_made_and_the_attempt_does_not_run_without(tmp_path: Path) -> None:
    gone = Hierarchy({Controller.MEMORY: tmp_path / "gone"}, {Controller.MEMORY: 1})

    async def scenario(stage: Stage) -> None:
        launch = stage.shell("echo ran")
        end, output = await stage.run(launch)
        assert certify(launch, end, output).evidence.cause == E.SPAWN_FAILED
        assert "gone" in end.message
        assert output.stdout == ""

    play(tmp_path, scenario, groups=gone)


def test_bounded_lines() -> None:
    assert bounded_lines("") == []
    assert bounded_lines("a\n\n b\n") == ["a", " b"]
    assert len(bounded_lines("\n".join(map(str, range(100))))) == 20
    (cut,) = bounded_lines("ä" * 5000)
    assert cut.startswith("…ä")
    assert len(cut.encode()) <= 4096
    assert bounded_lines("x" * 4000 + "\n" + "y" * 4000) == ["y" * 4000]
