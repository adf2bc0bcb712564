"""`towline agent install-service`: writes the systemd unit of this machine's agent, and hands its folder to its user.

May be repeated, as after an upgrade: the unit is written again, the environment file and the user are kept. Starts
nothing; what it says last is how to.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from towline_agent import enrollment, service_unit
from towline_agent.files import hand_over
from towline_agent.sandbox import reach
from towline_agent.service_host import ServiceHost
from towline_agent.service_unit import UNIT_NAME, BadService, Service

DEFAULT_STATE_DIR = "/var/lib/towline-agent"
DEFAULT_USER = "towline-agent"
ENVIRONMENT_FILE = "/etc/towline/agent.env"
UNIT_FOLDER = "/etc/systemd/system"


class ExitCode(IntEnum):
    """How the command ended; as those of the other commands of `towline`."""

    OK = 0
    INVALID_INPUT = 2
    NOT_ALLOWED = 3
    OTHER = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Installs the service; returns the exit code."""
    given = _parser().parse_args(arguments)
    state_dir = os.path.abspath(given.state_dir)
    try:
        service = Service(sys.executable, given.user, state_dir, ENVIRONMENT_FILE, given.drain_seconds)
        if given.print:
            print(service_unit.unit(service), end="")  # noqa: T201 - what was asked for
            return ExitCode.OK
        _install(ServiceHost(given.prefix), service, create_user=given.create_user)
    except BadService as error:
        return _refuse(ExitCode.INVALID_INPUT, error)
    except PermissionError as error:
        return _refuse(ExitCode.NOT_ALLOWED, f"{error}: run it as root, or see what it would write with --print")
    except (OSError, subprocess.CalledProcessError) as error:
        return _refuse(ExitCode.OTHER, error)
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "towline agent install-service", description="Write a hardened systemd unit for the agent.", allow_abbrev=False
    )
    parser.add_argument("--user", default=DEFAULT_USER, help=f"whom it runs as; default: {DEFAULT_USER}")
    parser.add_argument("--create-user", action="store_true", help="make that user if there is none")
    parser.add_argument("--state-dir", default=DEFAULT_STATE_DIR, metavar="DIR", help=f"default: {DEFAULT_STATE_DIR}")
    parser.add_argument("--drain-seconds", type=int, default=30, metavar="N", help="that a stop waits for what runs")
    parser.add_argument("--print", "--dry-run", action="store_true", help="print the unit and change nothing")
    parser.add_argument("--prefix", type=Path, default=Path("/"), metavar="DIR", help="write below DIR, for images")
    return parser


def _refuse(code: ExitCode, error: object) -> ExitCode:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's own words
    return code


def _install(host: ServiceHost, service: Service, *, create_user: bool) -> None:
    owner = host.user(service.user)
    if owner is None and not create_user:
        raise BadService(f"there is no user {service.user}: add --create-user, or make it")
    state_dir = host.path(service.state_dir)
    _check_folder(state_dir)
    if owner is None:
        owner = host.create_user(service.user, service.state_dir)
    hand_over(state_dir, owner)
    _write(host.path(ENVIRONMENT_FILE), service_unit.environment_file(), keep=True)
    _write(host.path(f"{UNIT_FOLDER}/{UNIT_NAME}"), service_unit.unit(service), keep=False)
    host.reload()
    _say_how_to_go_on(service, state_dir)


def _check_folder(state_dir: Path) -> None:
    """Nothing but an agent's folder is handed to its user."""
    if state_dir.exists() and any(state_dir.iterdir()) and not (state_dir / "lock").exists():
        raise BadService(f"{state_dir} is not empty and no agent's: choose another --state-dir")


def _write(file: Path, text: str, *, keep: bool) -> None:
    if keep and file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(text)
    draft.chmod(0o644)
    draft.replace(file)


def _say_how_to_go_on(service: Service, state_dir: Path) -> None:
    say = sys.stdout.write
    say(f"wrote {UNIT_FOLDER}/{UNIT_NAME} and {ENVIRONMENT_FILE}\n")
    if hidden := reach.barrier([service.python]):
        sys.stderr.write(
            f"warning: {service.user} cannot reach {hidden}: install Towline where all users can read it\n"
        )
    if not (state_dir / enrollment.FILE_NAME).exists():
        towline = shutil.which("towline") or "towline"
        say(f"enroll first: {towline} agent enroll --server HOST:PORT --state-dir {service.state_dir}\n")
    say("start it with: systemctl enable --now towline-agent\n")


if __name__ == "__main__":
    sys.exit(main())
