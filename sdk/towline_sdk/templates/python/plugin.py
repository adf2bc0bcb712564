"""Greets somebody. What `run` returns is the output; what it prints is the log.

`towline plugin schema` writes the types into `plugin.toml`.
"""

from dataclasses import dataclass
from typing import Annotated

from towline_sdk.plugin import PermanentError, plugin


@dataclass
class Config:
    """Whom to greet."""

    who: Annotated[str, {"minLength": 1}]


@dataclass
class Greeting:
    """What was said."""

    greeting: str


@plugin
def run(config: Config) -> Greeting:
    """Returns the greeting."""
    print(f"greeting {config.who}")  # noqa: T201 - the log
    if config.who == "nobody":
        raise PermanentError("there is nobody to greet", code="NOBODY_THERE")
    return Greeting(f"Hello, {config.who}!")
