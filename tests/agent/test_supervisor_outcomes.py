"""How attempts end, and what they see of the world meanwhile."""

import asyncio
import dataclasses
import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from supervisor_scenario import Stage, play

from towline_agent.execution import EndReason


@pytest.mark.parametrize(
    ("script", "reason", "exit_code", "signal_number"),
    [
        ("exit 0", EndReason.EXITED, 0, None),
        ("exit 1", EndReason.EXITED, 1, None),
        ("exit 75", EndReason.EXITED, 75, None),
        ("kill -SEGV $$", EndReason.SIGNALED, None, signal.SIGSEGV),
        ("kill -KILL $$", EndReason.SIGNALED, None, signal.SIGKILL),
    ],
)
def test_how_the_main_process_ended(
    tmp_path: Path, script: str, reason: EndReason, exit_code: int | None, signal_number: int | None
) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.shell(script))
        assert (ended.reason, ended.exit_code, ended.signal) == (reason, exit_code, signal_number)
        assert ended.killed == ()
        assert ended.elapsed_seconds > 0
        assert ended.peak_memory_bytes > 0

    play(tmp_path, scenario)


def test_result_is_what_was_written_to_descriptor_three(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        ended, output = await stage.run(stage.shell("cat; echo '{\"a\": 1}' >&$TOWLINE_RESULT_FD", stdin=b'{"in": 2}'))
        assert json.loads(ended.result) == {"a": 1}
        assert output.stdout == '{"in": 2}'

    play(tmp_path, scenario)


def test_result_beyond_its_limit_is_cut_and_does_not_block_the_plugin(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        script = "head -c 300000 /dev/zero >&3; echo written"
        ended, output = await stage.run(stage.shell(script, output_bytes=1000))
        assert ended.result == bytes(1000)
        assert ended.result_truncated
        assert output.stdout == "written\n"
        ended, _ = await stage.run(stage.shell("head -c 1000 /dev/zero >&3", output_bytes=1000))
        assert ended.result == bytes(1000)
        assert not ended.result_truncated

    play(tmp_path, scenario)


def test_output_without_newline_arrives_whole_and_unmixed(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 200000 /dev/zero | tr '\\0' y >&2"
        _, output = await stage.run(stage.shell(script))
        assert output.stdout == "x" * 3_000_000
        assert output.stderr == "y" * 200_000

    play(tmp_path, scenario)


def test_large_input_arrives_whole(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        _, output = await stage.run(stage.shell("wc -c", stdin=b"x" * 5_000_000))
        assert output.stdout.strip() == "5000000"

    play(tmp_path, scenario)


def test_plugin_sees_its_own_environment_folder_and_descriptors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWLINE_ENROLLMENT_TOKEN", "hunter2")
    held_open = (tmp_path / "held").open("w")
    os.set_inheritable(held_open.fileno(), True)  # noqa: FBT003
    script = "env; echo --; pwd; umask; ulimit -c; echo --; ls /proc/self/fd; echo --; cat /proc/$$/environ"

    async def scenario(stage: Stage) -> None:
        launch = stage.shell(script, environment={"PATH": "/usr/bin:/bin", "COLOUR": "blue"})
        _, output = await stage.run(launch)
        environment, place, descriptors, initial = output.stdout.split("--\n")
        names = {line.partition("=")[0] for line in environment.splitlines()}
        assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "COLOUR", "TOWLINE_RESULT_FD"}
        assert place.splitlines() == [str(launch.work_dir), "0077", "0"]
        assert set(descriptors.split()) <= {"0", "1", "2", "3", "4"}  # 4 is the folder that ls reads
        assert "hunter2" not in initial

    play(tmp_path, scenario)
    held_open.close()


def test_python_plugin_cannot_see_what_the_agent_had_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWLINE_ENROLLMENT_TOKEN", "hunter2")
    code = """
import os
from pathlib import Path

def initial_environment(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_text()
    except PermissionError:  # so for all but root
        return ""

def run():
    seen = initial_environment(os.getpid()) + initial_environment(os.getppid())
    return {"environment": dict(os.environ), "leaks": "hunter2" in seen, "cwd": os.getcwd()}
"""

    async def scenario(stage: Stage) -> None:
        launch = stage.python(code, environment={"COLOUR": "blue"})
        ended, _ = await stage.run(launch)
        seen = json.loads(ended.result)
        assert seen == {
            "environment": {"COLOUR": "blue", "TOWLINE_RESULT_FD": "3"},
            "leaks": False,
            "cwd": str(launch.work_dir),
        }

    play(tmp_path, scenario)


def test_timeout_kills_what_ignores_the_request_to_stop(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        script = "trap '' TERM; echo $$; while :; do sleep 1; done"
        ended, output = await stage.run(stage.shell(script, timeout_seconds=0.3, kill_grace_seconds=0.2))
        assert (ended.reason, ended.signal) == (EndReason.TIMEOUT, signal.SIGKILL)
        assert not psutil.pid_exists(int(output.stdout))

    play(tmp_path, scenario)


def test_timeout_lets_a_plugin_say_goodbye(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        script = "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"
        ended, output = await stage.run(stage.shell(script, timeout_seconds=0.5))
        assert (ended.reason, ended.exit_code) == (EndReason.TIMEOUT, 3)
        assert output.stdout == "bye\n"

    play(tmp_path, scenario)


def test_timeout_reaches_a_stopped_process(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.shell("kill -STOP $$", timeout_seconds=0.3, kill_grace_seconds=0.2))
        assert (ended.reason, ended.signal) == (EndReason.TIMEOUT, signal.SIGKILL)

    play(tmp_path, scenario)


def test_stop_asks_the_whole_group_first(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        script = (
            "(trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.05; done) & trap 'wait; exit 4' TERM; wait"
        )
        launch = stage.shell(script)
        running, output = stage.begin(launch)
        await output.lines(1)
        stage.supervisor.stop(launch.key)
        ended = await running
        assert (ended.reason, ended.exit_code) == (EndReason.STOPPED, 4)
        assert output.stdout == "ready\nchild\n"

    play(tmp_path, scenario)


def test_stop_right_after_the_launch_is_not_lost(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        for _ in range(20):
            launch = stage.shell("sleep 100", kill_grace_seconds=50.0)
            running, _ = stage.begin(launch)
            await asyncio.sleep(0)
            stage.supervisor.stop(launch.key)
            assert (await running).reason == EndReason.STOPPED

    play(tmp_path, scenario)


def test_stop_of_an_unknown_attempt_is_ignored(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.supervisor.stop("nobody")
        ended, _ = await stage.run(stage.shell("exit 0"))
        assert ended.reason == EndReason.EXITED

    play(tmp_path, scenario)


def test_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        missing, _ = await stage.run(stage.launch("absent", plugin_dir=stage.bundle({})))
        text, _ = await stage.run(stage.launch("notes.txt", plugin_dir=stage.bundle({"notes.txt": "just text"})))
        nowhere, _ = await stage.run(dataclasses.replace(stage.shell("exit 0"), work_dir=tmp_path / "gone"))
        ends = (missing, text, nowhere)
        assert [ended.reason for ended in ends] == [EndReason.SPAWN_FAILED] * 3
        assert [ended.message.partition(":")[0] for ended in ends] == [
            "No such file or directory",
            "Exec format error",
            "No such file or directory",
        ]
        assert [Path(ended.message.partition(": ")[2]).name for ended in ends] == ["absent", "notes.txt", "gone"]

    play(tmp_path, scenario)


def test_environment_too_large_for_a_message_fails_the_attempt_alone(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        ended, _ = await stage.run(stage.shell("exit 0", environment={"LARGE": "x" * 200_000}))
        assert ended.reason == EndReason.SPAWN_FAILED
        assert "environment is too large" in ended.message
        ended, _ = await stage.run(stage.shell("exit 0"))
        assert ended.reason == EndReason.EXITED

    play(tmp_path, scenario)


def test_twenty_attempts_at_once_keep_their_own_output_and_result(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        launches = [stage.shell(f"echo out-{i}; echo err-{i} >&2; echo {i} >&3; exit {i}") for i in range(20)]
        ends = await asyncio.gather(*(stage.run(launch) for launch in launches))
        for i, (ended, output) in enumerate(ends):
            assert (ended.exit_code, int(ended.result)) == (i, i)
            assert (output.stdout, output.stderr) == (f"out-{i}\n", f"err-{i}\n")

    play(tmp_path, scenario)


def test_key_that_runs_already_is_refused(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        launch = stage.shell("echo ready; sleep 100")
        running, output = stage.begin(launch)
        await output.lines(1)
        with pytest.raises(ValueError, match=launch.key):
            await stage.supervisor.run(launch, output)
        stage.supervisor.stop(launch.key)
        await running

    play(tmp_path, scenario)


def test_processor_time_of_the_whole_tree_is_counted(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        spin = "import time\nwhile time.process_time() < 0.2: pass"
        ended, _ = await stage.run(stage.shell(f"python3 -c '{spin}' & python3 -c '{spin}' & wait"))
        assert ended.cpu_seconds >= 0.4

    play(tmp_path, scenario)
