"""What a step asks of the agent that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class SandboxLevel(IntEnum):
    """How well an agent confines what it runs; each level has everything that the ones below it have."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4


@dataclass(frozen=True, slots=True)
class Requirements:
    """A distinct set of requirements is a queue."""

    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    sandbox_level: int = SandboxLevel.L0
    """The weakest that will do."""
    plugin: str | None = None
    """Name of what the step calls; None: any, of steps from before this was asked."""
