"""`towline agent enroll`: trades a token for a credential, and keeps the settings that later starts need.

May be repeated: a machine that is enrolled keeps its identity and needs no token, its settings become those given.
The token is best not on the command line, where every user of the machine can read it.
"""

import asyncio
import getpass
import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from towline.v1.agent_service_pb2 import EnrollRequest
from towline_agent import command_line, enrollment, settings_file
from towline_agent.command_line import FOLDER, LABELS, NAME, SERVER, SLOTS, BadSettings
from towline_agent.enrollment import Identity, NotAnswered, NotEnrolled
from towline_agent.files import Owner, hand_over, lock_folder, private_folder
from towline_agent.settings import Settings
from towline_agent.telemetry import configure_logging

KEPT = (SERVER, NAME, SLOTS, LABELS)
OPTIONS = (*KEPT, FOLDER)
TOKEN_VARIABLE, TOKEN_FILE_VARIABLE = "TOWLINE_ENROLLMENT_TOKEN", "TOWLINE_ENROLLMENT_TOKEN_FILE"
WARNING = (
    "warning: every user of this machine can read a token on the command line; --token-file and standard input are safe"
)


class ExitCode(IntEnum):
    """How the command ended; as those of the other commands of `towline`."""

    OK = 0
    INVALID_INPUT = 2
    REFUSED = 3
    UNAVAILABLE = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Enrolls this machine; returns the exit code."""
    parser = command_line.parser("enroll", "Make this machine an agent.", OPTIONS)
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--token", metavar="TOKEN", help="the enrollment token (others can see it: prefer a file)")
    tokens.add_argument("--token-file", metavar="FILE", help="holds the token; - or neither option: standard input")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="to wait for an answer")
    given = parser.parse_args(arguments)
    configure_logging("ERROR")
    if given.token is not None:
        print(WARNING, file=sys.stderr)  # noqa: T201 - the command's own words
    try:
        settings = command_line.settings(command_line.chosen(given, OPTIONS))
        identity, is_new = _identity(settings, given.token, given.token_file, given.timeout)
        settings_file.save(settings.state_dir, _kept(settings))
        _leave_to_its_user(settings.state_dir)
    except (BadSettings, settings_file.BadSettingsFile) as error:
        return _refuse(ExitCode.INVALID_INPUT, error)
    except NotAnswered as error:
        return _refuse(ExitCode.UNAVAILABLE, error)
    except (NotEnrolled, OSError) as error:
        return _refuse(ExitCode.REFUSED, error)
    said = "is enrolled" if is_new else "was enrolled before; its settings are kept"
    print(f"{settings.name} ({identity.agent_id}) {said} in {settings.state_dir.absolute()}")  # noqa: T201
    return ExitCode.OK


def _refuse(code: ExitCode, error: Exception) -> ExitCode:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return code


def _leave_to_its_user(folder: Path) -> None:
    """Root enrolls for the service, whose user owns the folder."""
    found = folder.stat()
    if os.geteuid() == 0 and found.st_uid != 0:
        hand_over(folder, Owner(found.st_uid, found.st_gid))


def _kept(settings: Settings) -> dict[str, str]:
    labels = ",".join(f"{key}={value}" for key, value in settings.labels.items())
    values = (settings.server, settings.name, str(settings.slots), labels)
    return {option.variable: value for option, value in zip(KEPT, values, strict=True)}


def _identity(
    settings: Settings, token: str | None, token_file: str | None, timeout_seconds: float
) -> tuple[Identity, bool]:
    folder = private_folder(settings.state_dir)
    file = folder / enrollment.FILE_NAME
    known = enrollment.load(file)
    if known is not None:
        _check_name(settings, folder)
        return known, False
    try:
        lock_folder(folder)
    except BlockingIOError:
        raise NotEnrolled(f"an agent that has no credential yet runs on {folder}: stop it first") from None
    identity = asyncio.run(_enroll(settings, _token(token, token_file), timeout_seconds))
    enrollment.save(file, identity)
    return identity, True


def _check_name(settings: Settings, folder: Path) -> None:
    """A name is for life: the control plane knows the agent by it."""
    name = settings_file.load(folder).get(NAME.variable, settings.name)
    if name != settings.name:
        raise NotEnrolled(
            f"{folder} belongs to the agent {name}: choose another --state-dir for {settings.name},"
            f" or remove {enrollment.FILE_NAME} there to give {name} up"
        )


async def _enroll(settings: Settings, token: str, timeout_seconds: float) -> Identity:
    from towline_agent.grpc_control_plane import GrpcControlPlane

    control_plane = GrpcControlPlane(settings.server)
    request = EnrollRequest(token=token, name=settings.name)
    try:
        return await enrollment.enroll_within(timeout_seconds, settings.server, control_plane.enroll, request)
    finally:
        await control_plane.close()


def _token(token: str | None, token_file: str | None) -> str:
    found = token if token is not None else _token_elsewhere(token_file)
    if not found.strip():
        raise NotEnrolled("the enrollment token is empty: an admin makes one with `towline agent token`")
    return found.strip()


def _token_elsewhere(token_file: str | None) -> str:
    if token_file is None and TOKEN_VARIABLE in os.environ:
        return os.environ[TOKEN_VARIABLE]
    file = token_file or os.environ.get(TOKEN_FILE_VARIABLE, "-")
    if file != "-":
        return Path(file).read_text()
    return getpass.getpass("Enrollment token: ") if sys.stdin.isatty() else sys.stdin.readline()


if __name__ == "__main__":
    sys.exit(main())
