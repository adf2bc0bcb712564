"""What plugin code may need of Towline: its secrets, and two exceptions that say whether trying again can help.

Standard library only; nothing else of the SDK is imported, so that a plugin's interpreter stays small.
"""

import json
import os
from functools import cache

SECRETS_VARIABLE = "TOWLINE_SECRETS_FD"


def secrets() -> dict[str, str]:
    """Returns the secrets that this attempt was given, by name.

    The first call reads their descriptor, closes it and takes its name out of the environment: processes that are
    started afterwards find nothing.
    """
    return dict(_given())


@cache
def _given() -> dict[str, str]:
    descriptor = os.environ.pop(SECRETS_VARIABLE, "")
    if not descriptor:
        return {}
    with open(int(descriptor), "rb") as file:
        return json.load(file)


class TransientError(Exception):
    """The attempt failed for a reason that may pass: the step is retried within its retry settings."""

    def __init__(self, message: str, *, code: str = "PLUGIN_ERROR", retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_ms = retry_after_ms


class PermanentError(Exception):
    """The attempt failed for a reason that stays: the step fails at once."""

    def __init__(self, message: str, *, code: str = "PLUGIN_ERROR") -> None:
        super().__init__(message)
        self.code = code
