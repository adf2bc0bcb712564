"""Greets somebody. What `run` returns is the output; what it prints is the log."""

from typing import Any

from towline_sdk.plugin import PermanentError


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the greeting."""
    who: str = config["who"]
    print(f"greeting {who}")  # noqa: T201 - the log
    if who == "nobody":
        raise PermanentError("there is nobody to greet", code="NOBODY_THERE")
    return {"greeting": f"Hello, {who}!"}
