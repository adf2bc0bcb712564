"""A node of a compiled DAG: what its document says, and what the plugin that was chosen for it adds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final

from towline_controlplane.engine import placement
from towline_controlplane.model import PluginRef
from towline_controlplane.protocol_versions import KNOWN_SINCE, UNTOLD
from towline_controlplane.requirements import Requirements, Size
from towline_dag import nodes
from towline_dag.choices import DEFAULT_LIMITS, Network, SideEffects


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Node(nodes.Node):
    """One plugin call, and which agents may be given it."""

    side_effects: SideEffects
    requirements: Requirements
    queue_id: str


_WRITTEN: Final = tuple(each.name for each in fields(nodes.Node))
_ASKS: Final[Mapping[str, Callable[[nodes.Node], bool]]] = MappingProxyType(
    {
        "network": lambda node: node.network is Network.NONE,
        "weight": lambda node: node.weight != 1,
        "limits": lambda node: node.limits != DEFAULT_LIMITS,
        "secrets": lambda node: node.takes_secrets,
        "fetchArtifacts": lambda node: node.fetch_artifacts,
    }
)
"""Whether a node asks for what not every version of the agent protocol knows."""


def with_plugin(node: nodes.Node, plugin: PluginRef | None) -> Node:
    """Returns the node as its plugin completes it; without a plugin as it is written."""
    written: dict[str, Any] = {name: getattr(node, name) for name in _WRITTEN}
    requirements = Requirements(
        labels=node.labels,
        sandbox_level=max(node.min_sandbox, plugin.min_sandbox if plugin else 0),
        plugin=plugin.name if plugin else None,
        network=_network(node, plugin),
        protocol_version=_protocol_version(node, plugin),
        size=Size(weight=node.weight, memory_mb=node.memory_limit_mb or (plugin.memory_limit_mb if plugin else 0)),
    )
    written["side_effects"] = node.side_effects or (plugin.side_effects if plugin else SideEffects.IDEMPOTENT)
    return Node(**written, requirements=requirements, queue_id=placement.queue_id(requirements))


def _network(node: nodes.Node, plugin: PluginRef | None) -> Network:
    """The stricter of what the node says and what the plugin asks for."""
    return Network.NONE if plugin is not None and plugin.network is Network.NONE else node.network


def _protocol_version(node: nodes.Node, plugin: PluginRef | None) -> int:
    """Returns the oldest version that knows all that the node, or its plugin for it, asks for."""
    asks = {name: asked(node) for name, asked in _ASKS.items()}
    if plugin is not None:
        asks["network"] |= plugin.network is Network.NONE
        asks["secrets"] |= bool(plugin.secrets)
        asks["limits"] |= plugin.limits != DEFAULT_LIMITS
    return max((KNOWN_SINCE[name] for name, asked in asks.items() if asked), default=UNTOLD)
