"""What confined processes cannot do: real attacks from inside every level."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sandbox_scenario import (
    CONFINED,
    IS_ROOT,
    ISOLATED,
    LEVELS,
    SYSCALL,
    USER,
    from_l2,
    from_l3,
    names,
    neighbour,
    outcome,
    run,
)
from supervisor_scenario import Stage, play

from towline_agent import prctl
from towline_agent.sandbox import bait
from towline_agent.sandbox.levels import Confinement, Level, Network


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
                    lambda: Path({str(outside)!r}).rename("mine"), lambda: Path("/dev/../mine").write_text("")):
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


LIMITS = """
import os, resource, signal
def run():
    reached = []
    signal.signal(signal.SIGXCPU, lambda *_: reached.append("SIGXCPU"))
    limits = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in ("CPU", "FSIZE", "NPROC")}
    while not reached:
        pass
    return {"limits": limits, "reached": reached}
"""


@from_l2
def test_processor_time_ends_with_a_warning_before_the_kill(tmp_path: Path, confinement: Confinement) -> None:
    found = run(tmp_path, LIMITS, confinement, timeout_seconds=30.0, cpu_seconds=1.0)
    assert found["reached"] == ["SIGXCPU"]
    assert found["limits"]["CPU"] == [1, 2]
    assert found["limits"]["FSIZE"] == [16 * 1024**3] * 2
    if not IS_ROOT or confinement.uid is not None:
        assert found["limits"]["NPROC"] == [4096] * 2
