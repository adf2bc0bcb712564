"""Which plugin each node of a DAG runs, fixed when its version is created (I21), and whether its config fits.

A built-in's type always means the built-in. Otherwise `pluginId` or else `type` names a plugin of the registry, and
`pluginVersion` or else the newest enabled version counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from towline_controlplane.errors import Violation
from towline_controlplane.model import PluginRef
from towline_controlplane.registry import PluginVersion
from towline_controlplane.store import plugins
from towline_controlplane.store.database import Transaction
from towline_dag.choices import Limits, Network, SandboxLevel, SideEffects
from towline_dag.schemas import wrong_config
from towline_plugins.catalog import BUILTINS, Builtin

_MAX_VIOLATIONS: Final = 20

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Choice:
    ref: PluginRef
    config_schema: Mapping[str, Any]


def choose_plugins(tx: Transaction, document: Document) -> tuple[dict[str, PluginRef], list[Violation]]:
    """Returns the plugin of each node by node id, and up to 20 places where there is none or the config is wrong."""
    chosen: dict[str, PluginRef] = {}
    wrong: list[Violation] = []
    known: dict[tuple[str, str, str], _Choice | Violation] = {}
    for index, node in enumerate(document["nodes"]):
        key = (node.get("type", ""), node.get("pluginId", ""), node.get("pluginVersion", ""))
        if key not in known:
            known[key] = _choose(tx, *key)
        choice, path = known[key], f"dag.nodes[{index}]"
        if isinstance(choice, Violation):
            wrong.append(Violation(f"{path}.{choice.field}", choice.message))
        else:
            chosen[node.get("id", "")] = choice.ref
            wrong.extend(wrong_config(choice.config_schema, node.get("config", {}), f"{path}.config"))
        if len(wrong) >= _MAX_VIOLATIONS:
            break
    return chosen, wrong[:_MAX_VIOLATIONS]


def _choose(tx: Transaction, kind: str, plugin_id: str, version: str) -> _Choice | Violation:
    builtin = BUILTINS.get(kind)
    if builtin is not None:
        return _of_builtin(builtin)
    if not kind and not plugin_id:
        return Violation("type", "is required: the name of a built-in or of a plugin")
    plugin = plugins.find_plugin(tx, plugin_id or kind)
    if plugin is None:
        return _unknown(kind, plugin_id)
    if kind and kind != plugin.name:
        return Violation("pluginId", f"names the plugin {plugin.name}, the type another one")
    found = plugins.find_version(tx, plugin.id, version or None)
    if found is None or not found.enabled:
        place = "pluginVersion" if version else "pluginId" if plugin_id else "type"
        return Violation(place, "names no enabled version of the plugin")
    return _Choice(_of_version(plugin.name, found), json.loads(found.config_schema))


def _unknown(kind: str, plugin_id: str) -> Violation:
    if plugin_id:
        return Violation("pluginId", "names no plugin")
    return Violation("type", f"is neither a built-in ({_names(sorted(BUILTINS))}) nor the name of a plugin")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


def _of_builtin(builtin: Builtin) -> _Choice:
    ref = PluginRef(
        name=builtin.name,
        version="",
        digest="",
        entry_point=builtin.entry_point,
        side_effects=SideEffects(builtin.side_effects),
        network=Network(builtin.network),
        min_sandbox=SandboxLevel[builtin.min_sandbox],
        limits=Limits(**builtin.limits),
    )
    return _Choice(ref, builtin.config_schema)


def _of_version(name: str, row: PluginVersion) -> PluginRef:
    return PluginRef(
        name=name,
        version=row.version,
        digest=row.digest,
        entry_point=row.entry_point,
        side_effects=row.side_effects,
        timeout_ms=row.timeout_ms,
        memory_limit_mb=row.memory_limit_mb,
        network=row.permissions.network,
        secrets=row.permissions.secrets,
        min_sandbox=row.min_sandbox,
        limits=row.limits,
    )
