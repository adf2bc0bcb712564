"""Which agents may run a step: a distinct set of requirements is a queue, claimed from by agents that meet them.

The claim and the explanation of why a step waits both ask `unmet` and `free_slots`, so that they cannot disagree.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from towline_controlplane.model import AgentRecord
from towline_controlplane.protocol_versions import KNOWN_SINCE, UNTOLD
from towline_controlplane.requirements import Requirements, Size
from towline_dag.choices import Network, SandboxLevel


class Rule(StrEnum):
    """What must hold before an agent is given a step, in the order of an explanation."""

    STATE = "STATE"
    DEPENDENCY = "DEPENDENCY"
    CANCEL = "CANCEL"
    PAUSE = "PAUSE"
    LIMIT = "LIMIT"
    TIME = "TIME"
    ONLINE = "ONLINE"
    LABEL = "LABEL"
    SANDBOX = "SANDBOX"
    NETWORK = "NETWORK"
    PLUGIN = "PLUGIN"
    PROTOCOL = "PROTOCOL"
    MEMORY = "MEMORY"
    SCHEDULABLE = "SCHEDULABLE"
    DRAIN = "DRAIN"
    SLOTS = "SLOTS"
    PRIORITY = "PRIORITY"


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule that an agent does not pass, and why, for a person."""

    rule: Rule
    message: str


def queue_id(requirements: Requirements) -> str:
    """Returns the id of the queue for these requirements; equal requirements give equal ids everywhere.

    Those that ask for labels alone have the id that they had before anything else could be asked for.
    """
    return _queue_id(_Asked.of(requirements))


def unmet(requirements: Requirements, agent: AgentRecord) -> list[Reason]:
    """Returns what keeps an agent from claiming from a queue with these requirements; nothing if it may."""
    return [
        Reason(rule, message)
        for rule, missing in _MISSING.items()
        for message in (missing(requirements, agent),)
        if message
    ]


def satisfies(requirements: Requirements, agent: AgentRecord) -> bool:
    """Tells whether an agent may claim from a queue with these requirements."""
    return not unmet(requirements, agent)


def free_slots(agent: AgentRecord, taken: int, now: int) -> int:
    """Returns how many more slots of an agent may be given away at `now`, when what it holds takes `taken` (I19)."""
    return max(agent.slots - taken, 0) if is_online(agent, now) and not refuses(agent) else 0


def refuses(agent: AgentRecord) -> list[Reason]:
    """Returns why an agent is given nothing at all, whatever it has room for."""
    found: list[Reason] = []
    if agent.disabled:
        found.append(Reason(Rule.SCHEDULABLE, "is disabled"))
    elif agent.unschedulable:
        found.append(Reason(Rule.SCHEDULABLE, f"takes nothing now: {agent.unschedulable}"))
    if agent.drained:
        found.append(Reason(Rule.DRAIN, "is drained"))
    return found


def believed_level(agent: AgentRecord) -> int:
    """Returns the sandbox that steps can count on."""
    return agent.sandbox_level if agent.sandbox_cap is None else min(agent.sandbox_level, agent.sandbox_cap)


def isolates_network(agent: AgentRecord) -> bool:
    """Tells whether steps can count on being kept off the network."""
    return agent.network_isolation != "none" and believed_level(agent) >= SandboxLevel.L2


def is_online(agent: AgentRecord, now: int) -> bool:
    """Tells whether the agent has been heard of within its lease."""
    return agent.lease_expire_time > now


@dataclass(frozen=True, slots=True)
class _Asked:
    """Requirements whose labels have an order: equal ones are equal as keys, too."""

    labels: tuple[tuple[str, str], ...]
    sandbox_level: int
    protocol_version: int
    plugin: str | None
    size: Size
    network: Network

    @classmethod
    def of(cls, asked: Requirements) -> "_Asked":
        """Returns the key of requirements."""
        labels = tuple(sorted(asked.labels.items()))
        return cls(labels, asked.sandbox_level, asked.protocol_version, asked.plugin, asked.size, asked.network)

    def document(self) -> dict[str, object]:
        """Returns what is asked for beyond what every step asks for."""
        beyond: dict[str, tuple[object, bool]] = {
            "labels": (dict(self.labels), True),
            "plugin": (self.plugin, self.plugin is not None),
            "sandboxLevel": (int(self.sandbox_level), self.sandbox_level > SandboxLevel.L0),
            "protocolVersion": (self.protocol_version, self.protocol_version > UNTOLD),
            "weight": (self.size.weight, self.size.weight > 1),
            "memoryMb": (self.size.memory_mb, self.size.memory_mb > 0),
            "network": (self.network, self.network is not Network.FULL),
        }
        return {name: value for name, (value, is_asked) in beyond.items() if is_asked}


@lru_cache(maxsize=1024)
def _queue_id(asked: _Asked) -> str:
    text = json.dumps(asked.document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _missing_labels(requirements: Requirements, agent: AgentRecord) -> str:
    lacking = {key: value for key, value in requirements.labels.items() if agent.labels.get(key) != value}
    if not lacking:
        return ""
    asked = ", ".join(f"{key}={value}" for key, value in sorted(lacking.items()))
    own = ", ".join(f"{key}={agent.labels[key]}" for key in sorted(lacking) if key in agent.labels)
    return f"lacks the label {asked}{f' (it has {own})' if own else ''}"


def _missing_sandbox(requirements: Requirements, agent: AgentRecord) -> str:
    if believed_level(agent) >= requirements.sandbox_level:
        return ""
    wanted, given = SandboxLevel(requirements.sandbox_level).name, SandboxLevel(believed_level(agent)).name
    capped = (
        f" (it says {SandboxLevel(agent.sandbox_level).name})" if believed_level(agent) < agent.sandbox_level else ""
    )
    return f"its sandbox is {given}{capped}, and {wanted} is asked for"


def _missing_isolation(requirements: Requirements, agent: AgentRecord) -> str:
    if requirements.network is Network.FULL or isolates_network(agent):
        return ""
    return "cannot keep a plugin off the network"


def _missing_protocol(requirements: Requirements, agent: AgentRecord) -> str:
    if agent.protocol_version >= requirements.protocol_version:
        return ""
    asked = ", ".join(sorted(name for name, since in KNOWN_SINCE.items() if since > agent.protocol_version))
    return f"its version {agent.version or 'of long ago'} does not know what nodes may ask for since ({asked})"


def _missing_plugin(requirements: Requirements, agent: AgentRecord) -> str:
    if requirements.plugin in agent.lacking:
        return f"has not installed what {requirements.plugin} needs"
    if not agent.plugins or requirements.plugin in agent.plugins:
        return ""
    wanted = requirements.plugin or "what a step from before plugins were asked for calls"
    return f"runs only {', '.join(sorted(agent.plugins))}, not {wanted}"


def _missing_memory(requirements: Requirements, agent: AgentRecord) -> str:
    has_mb = agent.memory_bytes >> 20
    if not agent.memory_bytes or requirements.size.memory_mb <= has_mb:
        return ""
    return f"has {has_mb:,} MiB of memory in all, and the step may take {requirements.size.memory_mb:,} MiB"


def _missing_slots(requirements: Requirements, agent: AgentRecord) -> str:
    # One whose session is unknown has no slots yet: that is not what keeps it.
    if not agent.slots or requirements.size.weight <= agent.slots:
        return ""
    return f"has {agent.slots} slots in all, and the step takes {requirements.size.weight}"


_MISSING: Mapping[Rule, Callable[[Requirements, AgentRecord], str]] = {
    Rule.LABEL: _missing_labels,
    Rule.SANDBOX: _missing_sandbox,
    Rule.NETWORK: _missing_isolation,
    Rule.PLUGIN: _missing_plugin,
    Rule.PROTOCOL: _missing_protocol,
    Rule.MEMORY: _missing_memory,
    Rule.SLOTS: _missing_slots,
}
