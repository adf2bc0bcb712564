"""The words of the sandbox: its levels, what each is made of, and how one attempt is to be confined.

A level holds on a host only if each of its features does, and those of the levels below it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final


class Level(IntEnum):
    """How well a plugin is confined; each level has everything that the ones below it have."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4


class Feature(StrEnum):
    """One thing that a confined process cannot do, by the name that people see."""

    NO_NEW_PRIVILEGES = "no_new_privileges"
    RESOURCE_LIMITS = "resource_limits"
    AGENT_HIDDEN = "agent_hidden"
    TREE_KILLED = "tree_killed"
    NOT_ROOT = "not_root"
    FILES_CONFINED = "files_confined"
    SYSTEM_CALLS_FILTERED = "system_calls_filtered"
    SOCKETS_FILTERED = "sockets_filtered"
    SIGNALS_SCOPED = "signals_scoped"
    OWN_ROOT = "own_root"
    OWN_PROCESSES = "own_processes"
    OWN_NETWORK = "own_network"
    OWN_TMP = "own_tmp"
    NO_CAPABILITIES = "no_capabilities"
    NO_USER_NAMESPACES = "no_user_namespaces"
    MEMORY_CGROUP = "memory_cgroup"
    PIDS_CGROUP = "pids_cgroup"
    GROUP_KILLED = "group_killed"
    OWN_USER = "own_user"
    CPU_CGROUP = "cpu_cgroup"


FEATURES_OF: Mapping[Level, tuple[Feature, ...]] = MappingProxyType(
    {
        Level.L1: (
            Feature.NO_NEW_PRIVILEGES,
            Feature.RESOURCE_LIMITS,
            Feature.AGENT_HIDDEN,
            Feature.TREE_KILLED,
            Feature.NOT_ROOT,
        ),
        Level.L2: (Feature.FILES_CONFINED, Feature.SYSTEM_CALLS_FILTERED, Feature.SOCKETS_FILTERED),
        Level.L3: (
            Feature.OWN_ROOT,
            Feature.OWN_PROCESSES,
            Feature.OWN_NETWORK,
            Feature.OWN_TMP,
            Feature.NO_CAPABILITIES,
            Feature.NO_USER_NAMESPACES,
        ),
        Level.L4: (Feature.MEMORY_CGROUP, Feature.PIDS_CGROUP, Feature.GROUP_KILLED, Feature.OWN_USER),
    }
)
"""What a level adds. SIGNALS_SCOPED depends on the kernel's age, and CPU_CGROUP adds only fairness to the limits of
processor time that all attempts have; no level needs them."""


def level_of(held: Collection[Feature]) -> Level:
    """Returns the highest level whose features, and those of all levels below it, are among `held`."""
    reached = Level.L0
    for level, features in FEATURES_OF.items():
        if not set(features) <= set(held):
            break
        reached = level
    return reached


class Network(StrEnum):
    """What a plugin may reach, and what keeps it from more."""

    HOST = "host"
    """Whatever the host reaches."""
    FILTERED = "filtered"
    """Nothing: no socket but UNIX ones can be opened. From L2 on."""
    OWN = "own"
    """Nothing but a loopback interface of its own. From L3 on."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """How one attempt is confined. `uid` is the user that it runs as; None: that of the agent."""

    level: Level = Level.L1
    network: Network = Network.HOST
    uid: int | None = None


LIMITED: Final = Confinement()


@dataclass(frozen=True, slots=True)
class Policy:
    """What all attempts of a supervisor see of the host."""

    readable: tuple[str, ...] = ()
    """Paths that plugins may read beside the system and the interpreter."""
    hidden: str | None = None
    """The agent's state folder; nothing that contains it is shown."""


SYSTEM_ONLY: Final = Policy()
