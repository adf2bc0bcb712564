"""What a step asks of the agent that runs it. Imports nothing of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Final


class Network(StrEnum):
    """What a plugin may reach."""

    NONE = "NONE"
    FULL = "FULL"


class SandboxLevel(IntEnum):
    """How well an agent confines what it runs; each level has everything that the ones below it have."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4


@dataclass(frozen=True, slots=True)
class Size:
    """What a step takes of its agent while it runs."""

    weight: int = 1
    """Slots."""
    memory_mb: int = 0
    """Its limit of memory; 0 where that is the control plane's default."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """A distinct set of requirements is a queue."""

    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    sandbox_level: int = SandboxLevel.L0
    """The weakest that will do."""
    plugin: str | None = None
    """Name of what the step calls; None: any, of steps from before this was asked."""
    protocol_version: int = 1
    """The oldest version of the agent protocol that knows all that the step asks for."""
    size: Size = Size()
    network: Network = Network.FULL
    """NONE: only an agent that can keep a plugin off the network will do."""

    def raised_to(self, floor: SandboxLevel) -> "Requirements":
        """Returns the same with no weaker sandbox than the platform's floor."""
        return self if self.sandbox_level >= floor else replace(self, sandbox_level=floor)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an attempt beyond its time and memory, as its plugin asks for them; 0 means the server's default."""

    cpu_seconds: int = 0
    """Processor time of the whole process tree."""
    processes: int = 0
    open_files: int = 0
    """Of one process."""
    file_mb: int = 0
    """Largest file that it may write."""
    output_kb: int = 0
    log_kb: int = 0
    artifact_mb: int = 0


DEFAULT_LIMITS: Final = Limits()
