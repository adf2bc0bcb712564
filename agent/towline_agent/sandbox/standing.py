"""What this host has proved to be able to do, and what it does for an attempt. Pure.

Never less than what is demanded: an attempt that cannot be confined so is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from towline_agent.sandbox.levels import Confinement, Feature, Level, Network


class NetworkDemand(StrEnum):
    """What the control plane says of an attempt's network."""

    FULL = "full"
    UNNEEDED = "unneeded"
    """It uses none, and gets none where that can be had."""
    NONE = "none"
    """It must not have any."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What an attempt asks for at least."""

    level: Level = Level.L0
    network: NetworkDemand = NetworkDemand.FULL


class SandboxUnavailable(Exception):
    """This agent cannot confine an attempt as it demands."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The outcome of a probe."""

    level: Level
    """The strongest that attempts get."""
    features: tuple[Feature, ...] = ()
    missing: Mapping[Feature, str] = field(default_factory=dict[Feature, str])
    """Why each feature that does not hold does not."""
    unproven: Mapping[Feature, str] = field(default_factory=dict[Feature, str])
    """Of features that hold: what this host refuses to everyone, so that refusing it proves nothing."""
    usable: frozenset[Level] = frozenset({Level.L0})
    kernel: str = ""
    probed_at: float = 0.0
    """Seconds since the epoch."""
    memory_enforcement: str = "sampled"
    """What keeps attempts within their memory: `cgroup` if the kernel was seen to, at whatever level they run."""

    @property
    def network_isolation(self) -> str:
        """What keeps a plugin off the network."""
        if self.level >= Level.L3:
            return "netns"
        return "seccomp" if self.level >= Level.L2 else "none"


UNPROVED: Final = Standing(Level.L0)
"""Of an agent that has not attacked its sandbox."""


def choose(standing: Standing, demand: Demand, uid: int | None) -> Confinement:
    """Returns how an attempt is confined: as strongly as can be; raises SandboxUnavailable below the demand."""
    level = standing.level
    if level < demand.level:
        raise SandboxUnavailable(f"{demand.level.name} is asked for, and this agent's sandbox is {level.name}")
    match demand.network:
        case NetworkDemand.NONE if level < Level.L2:
            raise SandboxUnavailable(f"no network is asked for, and {level.name} cannot keep a plugin off it")
        case NetworkDemand.NONE:
            network = Network.OWN if level >= Level.L3 else Network.FILTERED
        case NetworkDemand.UNNEEDED if level >= Level.L2:
            network = Network.FILTERED
        case _:
            network = Network.HOST
    return Confinement(level, network, uid if level > Level.L0 else None)
