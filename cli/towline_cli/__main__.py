"""Entry point of `towline`: runs a command and turns every failure into one line and an exit code.

The commands of a worker host are handed over before anything is imported that such a host need not have.
"""

import math
import os
import sys
from typing import NoReturn

from towline_cli.exit_codes import ExitCode, exit_code
from towline_cli.host_commands import HOST_COMMANDS, asked_for
from towline_cli.processes import become, require
from towline_sdk.errors import TowlineError, UnauthenticatedError


def main() -> NoReturn:
    """Runs the command of `sys.argv` and exits with its code."""
    sys.exit(run())


def run() -> int:
    """Runs the command of `sys.argv`; a failure is one line on stderr and a code, never a traceback."""
    try:
        if (command := asked_for(sys.argv[1:])) is None:
            _run_here()
        else:
            become("agent", {}, command.module, *sys.argv[1 + len(command.words) :])
    except TowlineError as error:
        print_error(error)
        return exit_code(error)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.OTHER
    except Exception as error:
        if os.environ.get("TOWLINE_DEBUG"):
            raise
        print(f"error: a defect of this command: {error!r} (TOWLINE_DEBUG=1 shows where)", file=sys.stderr)
        return ExitCode.OTHER
    return ExitCode.SUCCESS


def _run_here() -> None:
    try:
        from towline_cli.app import app
    except ModuleNotFoundError:
        require("cli", f"this command (not {', '.join(each.name for each in HOST_COMMANDS)})")
        raise
    app()


def print_error(error: TowlineError) -> None:
    """Says on stderr what failed, where, and how to go on."""
    # A server may have put the violations into the message: each is said once.
    unsaid = [each for each in error.violations if each.message not in error.message]
    listed = unsaid if len(error.violations) == 1 else error.violations
    repeated = len(error.violations) > 1 and not unsaid
    print(f"error: {'the request is not valid' if repeated else error.message}", file=sys.stderr)
    for violation in listed:
        print(f"  {violation.field}: {violation.message}", file=sys.stderr)
    if isinstance(error, UnauthenticatedError) and error.reason != "BAD_CREDENTIALS":
        print("  sign in with: towline login", file=sys.stderr)
    if error.retry_seconds is not None:
        print(f"  try again in {math.ceil(error.retry_seconds)} s", file=sys.stderr)
    if error.reason == "INTERNAL":
        print(f"  request id for the server's log: {error.request_id}", file=sys.stderr)


if __name__ == "__main__":
    main()
