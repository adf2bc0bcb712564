"""The compiled DAG of a workflow version: what its document says, and what the plugins of its nodes add."""

from collections.abc import Mapping
from typing import TypeAlias

from towline_controlplane.engine.nodes import Node, with_plugin
from towline_controlplane.errors import InvalidDag
from towline_controlplane.model import PluginRef
from towline_dag import graph
from towline_dag.violation import InvalidDocument

Dag: TypeAlias = graph.Dag[Node]


def compile_dag(document: Mapping[str, object], plugins: Mapping[str, PluginRef] | None = None) -> Dag:
    """Returns the DAG of a document as `towline_dag.graph` reads it; raises InvalidDag with all that is wrong.

    `plugins` are the resolved plugins by node id; a node that says nothing of its side effects takes its plugin's.
    """
    try:
        dag = graph.read_dag(document)
    except InvalidDocument as refusal:
        raise InvalidDag(refusal.violations) from None
    chosen = plugins or {}
    return dag.with_nodes([with_plugin(node, chosen.get(node.id)) for node in dag.nodes])
