"""DELAY: waits, inside the attempt's slot and time limit."""

import time
from typing import Any


def run(config: dict[str, Any]) -> dict[str, float]:
    """Returns the seconds that it waited."""
    time.sleep(config["seconds"])
    return {"seconds": config["seconds"]}
