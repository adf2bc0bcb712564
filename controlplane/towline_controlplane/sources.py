"""Where elapsed time, chance and new names come from, for all parts that need them: a simulation gives its own."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from towline_controlplane.ids import new_id
from towline_controlplane.tokens import new_lease_token


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a process; these are the machine's."""

    monotonic: Callable[[], float] = time.monotonic
    """Elapsed seconds, by which this process judges its own patience (T2, T3)."""
    jitter: Callable[[], float] = random.random
    """A number in [0, 1)."""
    new_id: Callable[[], str] = new_id
    new_token: Callable[[], str] = new_lease_token
