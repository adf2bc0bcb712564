"""The unit that systemd gets: complete, without secrets, hardened, and written to where it belongs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from towline_agent.install_service import ExitCode
from towline_agent.service_unit import BadService, Service, unit

SERVICE = Service("/opt/towline/bin/python", "towline-agent", "/var/lib/towline-agent", "/etc/towline/agent.env")
WORST_EXPOSURE = 3.5
"""Of 10, by systemd's own count; most of what is left is what the sandbox of the plugins is made of."""
UNIT_FILE = "etc/systemd/system/towline-agent.service"


def install(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "towline_agent.install_service", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"], **environment}
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The root of a machine's image with one user, this one."""
    (tmp_path / "etc").mkdir()
    for name in ("group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).write_text("")
    (tmp_path / "etc" / "passwd").write_text(f"runner:x:{os.geteuid()}:{os.getegid()}::/:/bin/sh\n")
    return tmp_path


def directives(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z]\w+)=(.*)$", text, re.MULTILINE))


def systemd_analyze() -> str:
    """Returns the program; root gets it from the distribution, and only a machine without a CI may do without."""
    found = shutil.which("systemd-analyze")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in ("update", "install --yes --no-install-recommends systemd"):
            subprocess.run(["apt-get", "--quiet", *command.split()], capture_output=True, check=False)
        found = shutil.which("systemd-analyze")
    if found is None:
        assert "CI" not in os.environ, "the tests of the unit need systemd-analyze"
        pytest.skip("systemd-analyze is not here and cannot be installed")
    return found


NEEDED = (
    *("clone", "unshare", "mount", "mount_setattr", "pivot_root", "umount2", "sethostname", "ioctl", "socket"),
    *("capset", "prctl", "seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"),
    *("setresuid", "setresgid", "setgroups", "setrlimit", "setsid", "execve", "kill", "flock", "sched_yield"),
)
"""What the supervisor calls to run an attempt in a sandbox of whatever level."""


def test_the_unit_lets_the_sandbox_make_its_system_calls() -> None:
    listed = subprocess.run([systemd_analyze(), "syscall-filter"], capture_output=True, text=True, check=True).stdout
    sets: dict[str, list[str]] = {}
    for line in listed.splitlines():
        name = re.sub("\x1b\\[[0-9;]*m", "", line).partition("#")[0].strip()
        if name and not line.startswith(" "):
            sets[name] = []
        elif name and sets:
            sets[list(sets)[-1]].append(name)
    granted = [
        name for said in re.findall(r"^SystemCallFilter=(.*)$", unit(SERVICE), re.MULTILINE) for name in said.split()
    ]
    while names := [name for name in granted if name.startswith("@")]:
        granted = [name for name in granted if name not in names] + [each for name in names for each in sets[name]]
    assert set(NEEDED) - set(granted) == set()


def test_the_unit_keeps_what_the_agent_promises() -> None:
    said = directives(unit(SERVICE))
    assert said["ExecStart"] == "/opt/towline/bin/python -P -m towline_agent"
    assert (said["Type"], said["KillMode"], said["Delegate"]) == ("notify", "mixed", "yes")
    assert said["RestartPreventExitStatus"] == "76 77 78"
    assert int(said["TimeoutStopSec"]) > 30
    assert "TOWLINE_AGENT_DIR=/var/lib/towline-agent" in said["Environment"]
    assert "user" in said["RestrictNamespaces"].split()
    assert not {"MemoryDenyWriteExecute", "ProtectControlGroups", "ProtectProc"} & set(said)


@pytest.mark.parametrize(
    ("state_dir", "protected"), [("/var/lib/a", "yes"), ("/home/me/agent", "read-only"), ("/homes/a", "yes")]
)
def test_homes_are_hidden_unless_the_agent_lives_in_one(state_dir: str, protected: str) -> None:
    service = Service("/usr/bin/python3", "u", state_dir, "/etc/towline/agent.env")
    assert directives(unit(service))["ProtectHome"] == protected


@pytest.mark.parametrize(
    ("python", "user", "state_dir"),
    [
        ("/usr/bin/python3", "a user", "/s"),
        ("/usr/bin/python3", "u", "/s\nExecStartPre=/bin/sh"),
        ("/usr/bin/python3", "u", "/s/../etc"),
        ("/usr/bin/py thon", "u", "/s"),
        ("/usr/bin/python3", "u", "/100%"),
        ("/usr/bin/python3", "u", "relative"),
    ],
)
def test_what_a_unit_cannot_carry_is_refused(python: str, user: str, state_dir: str) -> None:
    with pytest.raises(BadService):
        Service(python, user, state_dir, "/etc/towline/agent.env")


def test_systemd_understands_it_and_finds_it_hardened(tmp_path: Path) -> None:
    analyze = systemd_analyze()
    file = tmp_path / "towline-agent.service"
    file.write_text(unit(Service(sys.executable, "root", str(tmp_path), "/etc/towline/agent.env")))
    verified = subprocess.run([analyze, "verify", file], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    # Without a running systemd the words are the same; the number is what counts.
    file.write_text(unit(SERVICE))
    command = [analyze, "security", "--offline=true", "--no-pager", file]
    judged = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LANG": "C.UTF-8"})
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze judges no unit offline")
    exposure = re.search(r"Overall exposure level for towline-agent.service: ([0-9.]+)", judged.stdout)
    assert exposure is not None, judged.stdout + judged.stderr
    assert float(exposure[1]) <= WORST_EXPOSURE


def test_installing_writes_the_unit_and_hands_the_folder_over(image: Path) -> None:
    (image / "var/lib/towline-agent").mkdir(parents=True)
    (image / "var/lib/towline-agent/lock").touch()
    done = install("--prefix", str(image), "--user", "runner", "--drain-seconds", "120")
    assert done.returncode == ExitCode.OK, done.stderr
    said = directives((image / UNIT_FILE).read_text())
    assert (said["User"], said["TimeoutStopSec"]) == ("runner", "145")
    assert sys.executable in said["ExecStart"]
    assert (image / "var/lib/towline-agent").stat().st_mode & 0o777 == 0o700
    assert "agent enroll --server" in done.stdout
    assert "systemctl enable --now towline-agent" in done.stdout


def test_installing_again_keeps_what_the_operator_wrote(image: Path) -> None:
    install("--prefix", str(image), "--user", "runner")
    settings = image / "etc/towline/agent.env"
    settings.write_text('TOWLINE_AGENT_SLOTS="9"\n')
    (image / "var/lib/towline-agent/credential.json").write_text("{}")
    (image / "var/lib/towline-agent/lock").touch()
    done = install("--prefix", str(image), "--user", "runner", "--drain-seconds", "5")
    assert done.returncode == ExitCode.OK, done.stderr
    assert settings.read_text() == 'TOWLINE_AGENT_SLOTS="9"\n'
    assert directives((image / UNIT_FILE).read_text())["TimeoutStopSec"] == "30"
    assert "agent enroll" not in done.stdout


def test_a_user_that_is_not_there_is_made_only_on_demand(image: Path) -> None:
    refused = install("--prefix", str(image))
    assert (refused.returncode, "--create-user" in refused.stderr) == (ExitCode.INVALID_INPUT, True)
    assert not (image / UNIT_FILE).exists()
    if os.geteuid() != 0:
        made = install("--prefix", str(image), "--create-user")
        assert (made.returncode, "run it as root" in made.stderr) == (ExitCode.NOT_ALLOWED, True)
        pytest.skip("only root can make users")
    made = install("--prefix", str(image), "--create-user")
    assert made.returncode == ExitCode.OK, made.stderr
    (entry,) = (line for line in (image / "etc/passwd").read_text().splitlines() if line.startswith("towline-agent:"))
    _, _, uid, _, _, home, shell = entry.split(":")
    assert (home, shell) == ("/var/lib/towline-agent", "/usr/sbin/nologin")
    assert (image / "var/lib/towline-agent").stat().st_uid == int(uid)
    assert install("--prefix", str(image), "--create-user").returncode == ExitCode.OK


def test_a_folder_of_something_else_is_never_handed_over(image: Path) -> None:
    (image / "srv").mkdir()
    (image / "srv/data").touch()
    refused = install("--prefix", str(image), "--user", "runner", "--state-dir", "/srv")
    assert (refused.returncode, "no agent's" in refused.stderr) == (ExitCode.INVALID_INPUT, True)
    assert not (image / UNIT_FILE).exists()


def test_printing_changes_nothing(image: Path) -> None:
    before = sorted(image.rglob("*"))
    printed = install("--prefix", str(image), "--print")
    assert (printed.returncode, printed.stdout.count("[Service]")) == (ExitCode.OK, 1)
    assert sorted(image.rglob("*")) == before
