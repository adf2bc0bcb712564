"""The options of the commands of a worker host, and the settings that they, the environment and the state folder make.

An option is a setting under another name: nothing can be said here that the environment cannot say.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from towline_agent import settings_file
from towline_agent.settings import Settings

STATE_DIR = "TOWLINE_AGENT_DIR"


@dataclass(frozen=True, slots=True)
class Option:
    """An option and the setting that it is."""

    flags: tuple[str, ...]
    variable: str
    metavar: str
    help: str


SERVER = Option(("--server",), "TOWLINE_SERVER", "HOST:PORT[,…]", "the control plane, or several replicas of it")
NAME = Option(("--name",), "TOWLINE_AGENT_NAME", "NAME", "unique in the installation; default: the host's")
SLOTS = Option(("--slots",), "TOWLINE_AGENT_SLOTS", "N", "attempts at the same time")
LABELS = Option(("--labels",), "TOWLINE_AGENT_LABELS", "K=V[,…]", "what nodes ask for")
FOLDER = Option(("--state-dir", "--dir"), STATE_DIR, "DIR", "folder of the credential, the settings and the spools")
TOKEN_FILE = Option(
    ("--token-file", "--enrollment-token-file"), "TOWLINE_ENROLLMENT_TOKEN_FILE", "FILE", "holds the enrollment token"
)


class BadSettings(Exception):
    """The settings cannot work; the message has a line for each problem."""


def parser(command: str, description: str, options: Sequence[Option]) -> argparse.ArgumentParser:
    """Returns the parser of a command with these options."""
    made = argparse.ArgumentParser(f"towline agent {command}", description=description, allow_abbrev=False)
    for option in options:
        made.add_argument(*option.flags, dest=option.variable, metavar=option.metavar, help=option.help)
    return made


def chosen(arguments: argparse.Namespace, options: Sequence[Option]) -> dict[str, str]:
    """Returns the settings that were given as options."""
    given = {option.variable: getattr(arguments, option.variable) for option in options}
    return {variable: value for variable, value in given.items() if value is not None}


def settings(options: dict[str, str]) -> Settings:
    """Returns the settings of this process; raises BadSettings. Options come before the environment, the file last."""
    default = str(Settings.model_fields["state_dir"].default)
    folder = Path(options.get(STATE_DIR) or os.environ.get(STATE_DIR) or default)
    try:
        return Settings.model_validate(settings_file.under(folder, options))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}" for each in error.errors()]
        raise BadSettings("\n".join(problems)) from error
    except (settings_file.BadSettingsFile, OSError, UnicodeDecodeError) as error:
        raise BadSettings(str(error)) from error
