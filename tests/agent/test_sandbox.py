"""What confined processes can do and cannot: real attacks at every level, as root and as an ordinary user."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from supervisor_scenario import Stage, play

from towline_agent import prctl
from towline_agent.execution import EndReason, Exit, Launch
from towline_agent.sandbox import bait
from towline_agent.sandbox.levels import Confinement, Level, Network

IS_ROOT = os.geteuid() == 0
UID = 61_000
USER = UID if IS_ROOT else None
ISOLATED = Confinement(Level.L3, Network.OWN, USER)
CONFINED = Confinement(Level.L2, Network.FILTERED)
LEVELS = [Confinement(Level.L0), Confinement(Level.L1), CONFINED, Confinement(Level.L3, uid=USER), ISOLATED]
SYSCALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(each) for each in arguments])
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def give(launch: Launch) -> Launch:
    """Lets the user of an attempt at what an agent would give it."""
    uid = launch.confinement.uid
    if launch.plugin_dir is not None:
        for path in (launch.plugin_dir, *launch.plugin_dir.iterdir()):
            path.chmod(0o755)
    if uid is not None:
        for path in {launch.work_dir, launch.artifacts_dir}:
            os.chown(path, uid, uid)
    return launch


async def outcome(stage: Stage, code: str, confinement: Confinement, **settings: Any) -> Any:
    """What the function `run` of a plugin returns when it runs confined."""
    ended, output = await stage.run(give(stage.python(code, confinement=confinement, **settings)))
    assert (ended.reason, ended.exit_code) == (EndReason.EXITED, 0), (ended, output.stderr)
    return json.loads(ended.result)


def run(folder: Path, code: str, confinement: Confinement, **settings: Any) -> Any:
    """The same on a stage of its own."""
    found: list[Any] = []

    async def scenario(stage: Stage) -> None:
        found.append(await outcome(stage, code, confinement, **settings))

    play(folder, scenario)
    return found[0]


@contextmanager
def neighbour(uid: int | None = None) -> Generator[int]:
    """A process of the host, with a secret in its environment."""
    process = subprocess.Popen(["/bin/sleep", "60"], env={"TOKEN": "secret"}, user=uid)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def names(levels: list[Confinement]) -> list[str]:
    return [f"{each.level.name}-{each.network}" for each in levels]


each_level = pytest.mark.parametrize("confinement", LEVELS, ids=names(LEVELS))
from_l2 = pytest.mark.parametrize("confinement", LEVELS[2:], ids=names(LEVELS[2:]))
from_l3 = pytest.mark.parametrize("confinement", LEVELS[3:], ids=names(LEVELS[3:]))


@each_level
def test_honest_plugins_work_at_every_level(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import colorsys, os, subprocess, threading
from pathlib import Path
def run():
    Path("file").write_text("1")
    Path(os.environ.get("TMPDIR", "."), "other").write_text("2")
    seen = []
    thread = threading.Thread(target=lambda: seen.append("thread")); thread.start(); thread.join()
    shell = "echo out; echo err > /dev/stderr; cat file | tr 1 3 > copied; cat copied"
    seen.append(subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout)
    seen.append(len(os.urandom(8)))
    return [*seen, sorted(os.listdir("."))[:2]]
"""
    assert run(tmp_path, code, confinement) == ["thread", "out\n3", 8, ["copied", "file"]]


@each_level
def test_executables_work_at_every_level(tmp_path: Path, confinement: Confinement) -> None:
    async def scenario(stage: Stage) -> None:
        script = "cat; echo told > /dev/stderr; printf '{\"pid\": 1}' >&3; exit 0"
        ended, output = await stage.run(give(stage.shell(script, confinement=confinement)))
        assert (ended.exit_code, ended.result, output.stdout, output.stderr) == (0, b'{"pid": 1}', "{}", "told\n")

    play(tmp_path, scenario)


@from_l3
def test_a_plugin_has_no_privilege_at_all(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import os
from pathlib import Path
def run():
    status = dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
    return {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}
"""
    nothing = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
    assert run(tmp_path, code, confinement) == {**nothing, "NoNewPrivs": "1", "Seccomp": "2"}


@from_l3
def test_the_read_only_system_cannot_be_made_writable(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import os, subprocess
def run():
    refused = []
    for command in ("mount -o remount,rw /", "mount -o remount,rw,bind /usr", "touch /usr/bin/mine", "touch /mine",
                    "touch /etc/passwd", "mknod disk b 8 0", "/usr/sbin/chroot ."):
        done = subprocess.run(command.split(), capture_output=True)
        refused.append(done.returncode != 0)
    return refused
"""
    assert run(tmp_path, code, confinement) == [True] * 7


@from_l3
def test_no_process_of_the_host_is_seen_and_pid_1_shows_nothing(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import os
from pathlib import Path
def run():
    def read(path):
        try:
            return len(Path(path).read_bytes())
        except OSError as error:
            return type(error).__name__
    return [sorted(int(name) for name in os.listdir("/proc") if name.isdigit()), read("/proc/1/environ"),
            read("/proc/1/maps"), os.getpid()]
"""
    assert run(tmp_path, code, confinement) == [[1, 2], "PermissionError", "PermissionError", 2]


@from_l3
def test_the_first_process_of_the_tree_cannot_be_killed_or_stopped_from_inside(
    tmp_path: Path, confinement: Confinement
) -> None:
    code = """
import os, signal
def run():
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR2):
        try:
            os.kill(1, number)
        except PermissionError:
            pass
    return "still here"
"""
    assert run(tmp_path, code, confinement) == "still here"


@from_l2
def test_dangerous_system_calls_are_refused(tmp_path: Path, confinement: Confinement) -> None:
    code = f"""{SYSCALL}
import platform
from towline_agent.sandbox.seccomp import DENIED
def run():
    column = ("x86_64", "aarch64").index(platform.machine())
    numbers = {{name: both[column] for name, both in DENIED.items() if both[column] is not None}}
    found = {{name: call(number, 0, 0, 0, 0, 0) for name, number in numbers.items()}}
    return {{name: what for name, what in found.items() if what != "EPERM"}} | {{
        "clone3": call(435, 0, 0), "clone": call((56, 220)[column], 0x10000000 | 17, 0, 0, 0, 0)}}
"""
    assert run(tmp_path, code, confinement) == {"clone3": "ENOSYS", "clone": "EPERM"}


@from_l2
def test_files_outside_what_is_granted_are_out_of_reach(tmp_path: Path, confinement: Confinement) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "secret").write_text("secret")
    (outside / "secret").chmod(0o644)
    code = f"""
import os
from pathlib import Path
def run():
    os.symlink({str(outside / "secret")!r}, "link")
    found = []
    for attempt in (lambda: Path({str(outside / "secret")!r}).read_text(), lambda: Path("link").read_text(),
                    lambda: Path({str(outside)!r}, "new").write_text(""), lambda: Path("/etc/shadow").read_text(),
                    lambda: Path({str(outside)!r}).rename("mine"), lambda: Path("/dev/../root/x").write_text("")):
        try:
            found.append(attempt())
        except OSError as error:
            found.append(error.errno in (1, 2, 13, 18, 30))
    return found
"""
    assert run(tmp_path, code, confinement) == [True] * 6
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


@pytest.mark.parametrize("confinement", [CONFINED, ISOLATED, Confinement(Level.L3, Network.FILTERED, USER)])
def test_without_a_network_nothing_leaves_by_any_protocol(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import socket
def run(config):
    found = {}
    for name, family, kind, address in (
        ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", config["tcp"])),
        ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", config["udp"])),
        ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, "\\0" + config["abstract"]),
        ("vsock", socket.AF_VSOCK, socket.SOCK_STREAM, (2, 1024)),
        ("packet", socket.AF_PACKET, socket.SOCK_RAW, ("lo", 0)),
    ):
        try:
            with socket.socket(family, kind) as made:
                found[name] = ""
                made.connect(address)
                if kind == socket.SOCK_DGRAM:
                    made.send(b"x")
                    made.settimeout(5)
                    made.recv(1)
                found[name] = "reached"
        except OSError:
            found.setdefault(name, "")
    pair = socket.socketpair()
    pair[0].send(b"y")
    return found, pair[1].recv(1).decode()
"""

    async def scenario(stage: Stage) -> None:
        async with bait.laid_out(None) as laid:
            nothing = dict.fromkeys(("tcp", "udp", "abstract", "vsock", "packet"), "")
            assert await outcome(stage, code, confinement, stdin={"config": laid}) == [nothing, "y"]
            open_network = await outcome(stage, code, Confinement(Level.L0), stdin={"config": laid})
            assert {name for name, what in open_network[0].items() if what} >= {"tcp", "udp", "abstract"}
            granted = await outcome(
                stage, code, Confinement(confinement.level, uid=confinement.uid), stdin={"config": laid}
            )
            assert {name for name, what in granted[0].items() if what} == {"tcp", "udp"}

    play(tmp_path, scenario)


def test_a_network_of_its_own_has_a_loopback_that_works(tmp_path: Path) -> None:
    code = """
import socket
def run():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.send(b"z")
        return server.accept()[0].recv(1).decode()
"""
    assert run(tmp_path, code, ISOLATED) == "z"


@pytest.mark.parametrize("confinement", LEVELS[1:], ids=names(LEVELS[1:]))
def test_an_agent_that_may_not_be_inspected_keeps_its_environment(tmp_path: Path, confinement: Confinement) -> None:
    if IS_ROOT and confinement.uid is None and confinement.level < Level.L1:
        pytest.skip("an unconfined root reads everything")
    code = """
import ctypes
from pathlib import Path
def run(config):
    def attempt(what):
        try:
            return what()
        except OSError:
            return "refused"
    libc = ctypes.CDLL(None)
    return [attempt(lambda: Path(f"/proc/{pid}/environ").read_text()) for pid in config["pids"]] + [
        libc.ptrace(0x4206, config["pids"][0], None, None)]
"""
    script = f"from {prctl.__name__} import refuse_inspection as hide; hide(); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        found = run(tmp_path, code, confinement, stdin={"config": {"pids": [agent.pid, os.getpid()]}})
        agent.kill()
    assert found[0] == "refused"
    assert found[-1] == -1
    if confinement.level >= Level.L2:
        assert found[1] == "refused"


@from_l2
def test_a_process_of_the_same_user_outside_cannot_be_signalled(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import os, signal
def run(config):
    try:
        os.kill(config["pid"], signal.SIGTERM)
    except (PermissionError, ProcessLookupError):
        return "refused"
"""

    async def scenario(stage: Stage) -> None:
        with neighbour(confinement.uid) as pid:
            target = {"config": {"pid": pid}}
            assert await outcome(stage, code, confinement, stdin=target) == "refused"
            assert await outcome(stage, code, Confinement(Level.L0), stdin=target) is None

    play(tmp_path, scenario)


@from_l3
def test_its_own_tmp_is_empty_bounded_in_bytes_and_files_and_gone_afterwards(
    tmp_path: Path, confinement: Confinement
) -> None:
    code = """
import os
from pathlib import Path
def run():
    def attempt(what):
        try:
            return what()
        except OSError as error:
            return error.strerror
    before = [name for name in os.listdir("/tmp") if os.path.isfile("/tmp/" + name)]
    Path("/tmp/mine").write_text("x")
    Path("/var/tmp/also").write_text("x")
    def fill():
        with open("/dev/shm/large", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 65 * 1024 * 1024)
    def many():
        for number in range(70_000):
            os.close(os.open(f"/tmp/{number}", os.O_CREAT))
    return [before, attempt(fill), attempt(many)]
"""

    async def scenario(stage: Stage) -> None:
        for _ in range(2):  # the second finds nothing of the first
            found = await outcome(stage, code, confinement, memory_bytes=64 * 1024 * 1024)
            assert found == [[], "No space left on device", "No space left on device"]

    play(tmp_path, scenario)
    assert not Path("/tmp/mine").exists()


@each_level
def test_nothing_outlives_the_tree(tmp_path: Path, confinement: Confinement) -> None:
    code = """
import fcntl, os, signal
from pathlib import Path
from towline_agent.sandbox.canary import ATTACKS
def run():
    for _ in range(3):
        ATTACKS["outlive"]({})
        Path("locked").unlink()
        os.rename("alive", f"alive-{_}")
"""

    async def scenario(stage: Stage) -> None:
        launch = give(stage.python(code, confinement=confinement))
        ended, output = await stage.run(launch)
        assert (ended.exit_code, output.stderr) == (0, "")
        assert len(ended.killed) >= 3
        for number in range(3):
            with (launch.work_dir / f"alive-{number}").open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    play(tmp_path, scenario)


@from_l3
def test_ends_are_told_as_they_are_without_a_sandbox(tmp_path: Path, confinement: Confinement) -> None:
    async def scenario(stage: Stage) -> None:
        async def end(code: str, **settings: Any) -> Exit:
            return (await stage.run(give(stage.python(code, confinement=confinement, **settings))))[0]

        crash = await end("import os, signal\ndef run():\n    os.kill(os.getpid(), signal.SIGSEGV)")
        assert (crash.reason, crash.signal) == (EndReason.SIGNALED, signal.SIGSEGV)
        late = await end("import time\ndef run():\n    time.sleep(60)", timeout_seconds=0.2)
        assert (late.reason, late.signal) == (EndReason.TIMEOUT, signal.SIGTERM)
        deaf = "import signal, time\ndef run():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(60)"
        killed = await end(deaf, timeout_seconds=0.2, kill_grace_seconds=0.1)
        assert (killed.reason, killed.signal) == (EndReason.TIMEOUT, signal.SIGKILL)
        large = await end("def run():\n    return len(bytearray(300_000_000))", memory_bytes=64 * 1024 * 1024)
        assert large.reason in (EndReason.MEMORY_LIMIT, EndReason.EXITED)
        gone = await stage.run(give(stage.launch("absent", plugin_dir=stage.bundle({}), confinement=confinement)))
        assert (gone[0].reason, "absent" in gone[0].message) == (EndReason.SPAWN_FAILED, True)

    play(tmp_path, scenario)


@from_l3
def test_a_dead_supervisor_takes_its_confined_trees_along(tmp_path: Path, confinement: Confinement) -> None:
    code = "import time\ndef run():\n    print('runs', flush=True)\n    time.sleep(60)"

    async def scenario(stage: Stage) -> None:
        launch = give(stage.python(code, confinement=confinement))
        task, output = stage.begin(launch)
        await output.lines(1)
        for child in psutil.Process().children():
            child.kill()
        assert (await task).reason is EndReason.SUPERVISOR_LOST

    play(tmp_path, scenario)


def test_what_cannot_be_confined_is_not_run(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        broken = stage.python(
            "def run():\n    open('ran', 'w')", confinement=ISOLATED, artifacts_dir=tmp_path / "absent"
        )
        ended, _ = await stage.run(broken)
        assert (ended.reason, str(tmp_path / "absent") in ended.message) == (EndReason.SANDBOX_FAILED, True)
        assert not (broken.work_dir / "ran").exists()

    play(tmp_path, scenario)


@pytest.mark.skipif(not IS_ROOT, reason="only root has other users to give")
def test_a_limit_of_processes_does_not_hold_for_root_and_does_for_a_user_of_its_own(tmp_path: Path) -> None:
    code = """
from towline_agent.sandbox.canary import ATTACKS
def run():
    try:
        ATTACKS["fork_past_limit"]({})
    except OSError as error:
        return error.strerror
"""

    async def scenario(stage: Stage) -> None:
        assert await outcome(stage, code, Confinement(Level.L0)) is None
        assert await outcome(stage, code, ISOLATED) == "Resource temporarily unavailable"

    play(tmp_path, scenario)


@pytest.mark.skipif(not IS_ROOT, reason="the others run as an ordinary user already")
def test_all_of_this_holds_for_an_agent_of_an_ordinary_user(tmp_path: Path) -> None:
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    tests = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path}", __file__]
    done = subprocess.run([*user, *tests], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-3000:]
