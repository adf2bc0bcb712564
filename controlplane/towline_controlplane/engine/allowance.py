"""What an attempt may use: what its node asks for, else its plugin, else the server; never more than that allows."""

from dataclasses import dataclass, fields, replace
from typing import Final

from towline_controlplane.engine.nodes import Node
from towline_controlplane.model import PluginRef
from towline_controlplane.requirements import Requirements
from towline_dag.choices import Limits, SandboxLevel

_DEFAULTS: Final = Limits(processes=1024, open_files=4096, output_kb=4 * 1024, log_kb=64 * 1024, artifact_mb=1024)
_MOST: Final = Limits(output_kb=4 * 1024, log_kb=64 * 1024, artifact_mb=1024)


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the operator has set: what applies where nobody asks, and how much may be asked for (0: any)."""

    timeout_ms: int = 30_000
    memory_limit_mb: int = 512
    defaults: Limits = _DEFAULTS
    most_timeout_ms: int = 0
    most_memory_mb: int = 0
    most: Limits = _MOST

    def memory_mb(self, asked: int) -> int:
        """Returns the memory of an attempt that asks for so much; 0: for none in particular."""
        return _bounded(asked, self.memory_limit_mb, self.most_memory_mb)


DEFAULT_SERVER_LIMITS: Final = ServerLimits()


@dataclass(frozen=True, slots=True)
class Platform:
    """What the operator rules for every step, whatever it asks for."""

    floor: SandboxLevel = SandboxLevel.L0
    """No step goes to an agent with a weaker sandbox."""
    limits: ServerLimits = DEFAULT_SERVER_LIMITS

    def enforced(self, asked: Requirements) -> Requirements:
        """Returns what an agent has to meet: no less than the floor, and the memory that the step is allowed."""
        size = replace(asked.size, memory_mb=self.limits.memory_mb(asked.size.memory_mb))
        return replace(asked, sandbox_level=max(asked.sandbox_level, self.floor), size=size)


NO_RULES: Final = Platform()


@dataclass(frozen=True, slots=True)
class Allowed:
    """The limits of one attempt; 0 is without limit."""

    timeout_ms: int
    memory_limit_mb: int
    rest: Limits


def allow(node: Node, plugin: PluginRef, raised_memory_mb: int, server: ServerLimits) -> Allowed:
    """Returns the limits of an attempt; `raised_memory_mb` is what earlier ones have shown it to need, or 0."""
    names = [each.name for each in fields(Limits)]
    asked = {name: getattr(node.limits, name) or getattr(plugin.limits, name) for name in names}
    memory = raised_memory_mb or node.memory_limit_mb or plugin.memory_limit_mb
    return Allowed(
        timeout_ms=_bounded(node.timeout_ms or plugin.timeout_ms, server.timeout_ms, server.most_timeout_ms),
        memory_limit_mb=server.memory_mb(memory),
        rest=Limits(
            **{
                name: _bounded(asked[name], getattr(server.defaults, name), getattr(server.most, name))
                for name in names
            }
        ),
    )


def _bounded(asked: int, default: int, most: int) -> int:
    """A limit of 0 is none at all, which is more than any other."""
    wanted = asked or default
    return min(wanted or most, most) if most else wanted
