"""The settings that enrollment leaves in the state folder, for later starts: `NAME="value"` lines, no secret in them.

What systemd reads as an environment file can be read here, and the other way round. The environment of a process and
the options of a command both override the file.
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from towline_agent.files import write_private

FILE_NAME = "agent.env"

_LINE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
_QUOTED = str.maketrans({"\\": "\\\\", '"': '\\"'})
_HEADER = (
    "# Written by `towline agent enroll`; read by `towline agent run`, whose options and environment override it.\n"
)


class BadSettingsFile(Exception):
    """The file cannot be understood; the message names the line."""


def load(folder: Path) -> dict[str, str]:
    """Returns what the file in the folder sets; nothing if there is none."""
    file = folder / FILE_NAME
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(_setting(file, number, line) for number, line in enumerate(lines, 1) if _says_something(line))


def save(folder: Path, settings: Mapping[str, str]) -> None:
    """Replaces the file; raises BadSettingsFile for a value that cannot stand in a line."""
    for name, value in settings.items():
        if not value.isprintable():
            raise BadSettingsFile(f"{name} has characters that cannot be printed")
    lines = [f'{name}="{value.translate(_QUOTED)}"\n' for name, value in settings.items()]
    write_private(folder / FILE_NAME, "".join([_HEADER, *lines]).encode())


def under(folder: Path, options: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns what counts beside the environment: the options, and of the file what neither of the two sets."""
    kept = {name: value for name, value in load(folder).items() if name not in environment}
    return {**kept, **options}


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(("#", ";"))


def _setting(file: Path, number: int, line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line.strip())
    try:
        words = shlex.split(match[2]) if match else []
    except ValueError:
        words = ["", ""]
    if match is None or len(words) > 1:
        raise BadSettingsFile(f'{file}, line {number}: a setting is written as NAME="value"')
    return match[1], "".join(words)
