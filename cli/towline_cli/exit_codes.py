"""Exit codes of `towline`, and which error ends with which."""

from enum import IntEnum
from typing import Final

from towline_sdk import errors


class ExitCode(IntEnum):
    """What the exit code of a command says."""

    SUCCESS = 0
    RUN_NOT_SUCCEEDED = 1
    INVALID_INPUT = 2
    NOT_ALLOWED = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    OTHER = 6


EXPLAINED: Final = (
    "Exit codes: 0 done · 1 the run ended, but not SUCCEEDED, or the audit found a breach · "
    "2 wrong usage or invalid input · "
    "3 not signed in or not allowed · 4 not found · 5 the server is unavailable · 6 any other failure · 130 Ctrl-C"
)
EXIT_CODES: Final[tuple[tuple[type[errors.TowlineError], ExitCode], ...]] = (
    (errors.InvalidArgumentError, ExitCode.INVALID_INPUT),
    (errors.UnauthenticatedError, ExitCode.NOT_ALLOWED),
    (errors.PermissionDeniedError, ExitCode.NOT_ALLOWED),
    (errors.NotFoundError, ExitCode.NOT_FOUND),
    (errors.UnavailableError, ExitCode.UNAVAILABLE),
)


def exit_code(error: errors.TowlineError) -> ExitCode:
    """Returns the exit code of a command that failed with this error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), ExitCode.OTHER)
