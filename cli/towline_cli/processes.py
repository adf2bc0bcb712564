"""Replaces the CLI by a process of Towline: `controlplane`, `gateway`, `agent run`, a tool. Imports none of them.

All parts come in one wheel; what a part needs beside it is an extra, so a missing extra is found by its requirements.
"""

import os
import re
import sys
from importlib import metadata
from typing import Final, NoReturn

from towline_sdk.errors import TowlineError

DISTRIBUTION: Final = "towline"
REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9._-]+).*;.*\bextra == ['\"]([^'\"]+)['\"]")


def command_of(part: str) -> tuple[str, ...]:
    """Returns the command of a part's process; -P keeps the working folder from shadowing its modules."""
    return (sys.executable, "-P", "-m", f"towline_{part}")


def become(part: str, settings: dict[str, str], module: str = "", *arguments: str) -> NoReturn:
    """Turns this process into the part's, or into a tool in it, with the settings added to its environment."""
    require(part)
    command = (*command_of(f"{part}{module}"), *arguments)
    sys.stdout.flush()
    os.execve(command[0], command, os.environ | settings)  # noqa: S606 - no shell is wanted


def require(part: str, what: str = "") -> None:
    """Raises `TowlineError` naming the extra if a requirement of the part is not installed."""
    missing = [name for name in _requirements(part) if not _is_installed(name)]
    if missing:
        raise TowlineError(
            f"{what or f'the {part}'} needs {', '.join(missing)}: install it with pip install '{DISTRIBUTION}[{part}]'"
        )


def _requirements(extra: str) -> list[str]:
    matches = (REQUIREMENT.match(line) for line in metadata.requires(DISTRIBUTION) or ())
    return [match[1] for match in matches if match and match[2] == extra]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
