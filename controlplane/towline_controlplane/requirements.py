"""What a step asks of the agent that runs it. Imports nothing of ours but the words of documents."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from towline_dag.choices import Network, SandboxLevel


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

    def with_memory(self, memory_mb: int) -> "Requirements":
        """Returns the same with this limit of memory, if there is one."""
        return replace(self, size=replace(self.size, memory_mb=memory_mb)) if memory_mb else self
