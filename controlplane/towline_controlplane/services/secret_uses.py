"""Which secrets the steps of a DAG will be given, and whether they may, asked when a workflow version is created.

A plugin's are those of its `plugin.toml`, a built-in's those that its node lists. Each must belong to the owner of the
workflow and be granted to the plugin; the same is asked again at every hand-out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from towline_controlplane.errors import Violation
from towline_controlplane.json_values import to_text
from towline_controlplane.model import PluginRef
from towline_controlplane.store import secrets
from towline_controlplane.store.database import Transaction
from towline_controlplane.vault import MAX_GIVEN, wrong_name
from towline_plugins.catalog import BUILTINS, SECRET_PLACEHOLDER

PLACEHOLDER: Final = re.compile(SECRET_PLACEHOLDER)
_MAX_VIOLATIONS: Final = 20

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Use:
    """A secret that a node will be given, and the field that says so."""

    name: str
    plugin: str
    place: str


def with_node_secrets(document: Document, plugins: Mapping[str, PluginRef]) -> dict[str, PluginRef]:
    """Returns the plugins by node id, those of built-ins with the secrets that their nodes list."""
    listed = {node.get("id", ""): tuple(sorted(set(node.get("secrets", ())))) for node in document["nodes"]}
    return {
        node_id: replace(ref, secrets=listed[node_id]) if listed.get(node_id) and ref.name in BUILTINS else ref
        for node_id, ref in plugins.items()
    }


def wrong_secrets(
    tx: Transaction, document: Document, plugins: Mapping[str, PluginRef], owner_id: str
) -> list[Violation]:
    """Returns up to 20 places where a secret is used that cannot be, or may not."""
    wrong: list[Violation] = []
    uses: list[_Use] = []
    for index, node in enumerate(document["nodes"]):
        ref = plugins.get(node.get("id", ""))
        if ref is None or not (ref.secrets or node.get("secrets") or ref.name in BUILTINS):
            continue
        path = f"dag.nodes[{index}]"
        wrong.extend(_wrong_list(ref, node.get("secrets", ()), path))
        wrong.extend(_wrong_placeholders(ref, node.get("config", {}), path))
        uses.extend(_uses(ref, node.get("secrets", ()), path))
    if uses and not wrong:
        wrong.extend(_not_given(tx, uses, owner_id))
    return wrong[:_MAX_VIOLATIONS]


def _wrong_list(ref: PluginRef, names: Sequence[str], path: str) -> Iterator[Violation]:
    if not names:
        return
    builtin = BUILTINS.get(ref.name)
    if builtin is None:
        yield Violation(f"{path}.secrets", f"is for built-ins; those of {ref.name} are listed in its plugin.toml")
    elif not builtin.takes_secrets:
        yield Violation(f"{path}.secrets", f"{ref.name} takes none")
    elif len(names) > MAX_GIVEN:
        yield Violation(f"{path}.secrets", f"has {len(names)} entries; the limit is {MAX_GIVEN}")
    else:
        for number, name in enumerate(names):
            yield from wrong_name(name, f"{path}.secrets[{number}]")


def _wrong_placeholders(ref: PluginRef, config: Mapping[str, Any], path: str) -> Iterator[Violation]:
    builtin = BUILTINS.get(ref.name)
    if builtin is None or not builtin.fills_secrets:
        return
    text = to_text(config)
    if "{{secret:" not in text:
        return
    for name in sorted(set(PLACEHOLDER.findall(text)) - set(ref.secrets)):
        yield Violation(f"{path}.config", f"names the secret {name}, which is not among the node's `secrets`")


def _uses(ref: PluginRef, listed: Sequence[str], path: str) -> Iterator[_Use]:
    if ref.name in BUILTINS:
        return (_Use(name, ref.name, f"{path}.secrets[{number}]") for number, name in enumerate(listed))
    return (_Use(name, ref.name, f"{path}.type") for name in ref.secrets)


def _not_given(tx: Transaction, uses: Sequence[_Use], owner_id: str) -> Iterator[Violation]:
    known = secrets.names_and_grants(tx, owner_id, {use.name for use in uses})
    for use in uses:
        if use.name not in known:
            yield Violation(use.place, f"{use.plugin} needs the secret {use.name}, and there is none of this name")
        elif use.plugin not in known[use.name]:
            hint = f"`towline secret grant {use.name} {use.plugin}`"
            yield Violation(use.place, f"the secret {use.name} is not granted to {use.plugin}: {hint}")
