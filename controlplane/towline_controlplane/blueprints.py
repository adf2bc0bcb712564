"""Workflow versions as the engine sees them: compiled once, kept while they are in use.

A version is immutable, so a cached blueprint never goes stale. Thread-safe: versions are compiled ahead of a commit by
the thread that starts a run, and looked up by the committer's.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from towline_controlplane.engine.graph import Dag, compile_dag
from towline_controlplane.model import PluginRef, Run, WorkflowVersion
from towline_controlplane.requirements import Requirements
from towline_controlplane.store import workflows
from towline_controlplane.store.database import Transaction


@dataclass(frozen=True, slots=True, eq=False)
class Blueprint:
    """A compiled version: its DAG, the plugin of each node, and the configs that have no template, as JSON text."""

    version_id: str
    workflow_id: str
    dag: Dag
    plugins: Mapping[str, PluginRef]
    configs: tuple[str, ...]
    """By node index, as written."""
    reads_input: bool
    """Some expression may read the run's input."""
    queues: Mapping[str, Requirements]
    """The queues that its steps wait in, by id."""


def blueprint_of(version: WorkflowVersion) -> Blueprint:
    """Compiles a version; raises InvalidDag if it was stored by rules that no longer hold."""
    document: dict[str, Any] = json.loads(version.dag)
    dag = compile_dag(document, version.plugins)
    configs = (json.dumps(node.get("config", {}), ensure_ascii=False) for node in document["nodes"])
    reads_input = (
        dag.policies.reads_input
        or any(edge.expression for edge in dag.edges)
        or not all(node.config.is_constant for node in dag.nodes)
    )
    queues = {node.queue_id: node.requirements for node in dag.nodes}
    return Blueprint(version.id, version.workflow_id, dag, version.plugins, tuple(configs), reads_input, queues)


class Blueprints:
    """The most recently used blueprints, by version id, bounded by their number of nodes in all."""

    def __init__(self, max_nodes: int = 200_000) -> None:
        self._max_nodes = max_nodes
        self._lock = threading.Lock()
        self._by_version: OrderedDict[str, Blueprint] = OrderedDict()
        self._nodes = 0

    def get(self, version_id: str) -> Blueprint | None:
        """Returns the blueprint if it is at hand."""
        with self._lock:
            found = self._by_version.get(version_id)
            if found is not None:
                self._by_version.move_to_end(version_id)
            return found

    def of_run(self, tx: Transaction, run: Run) -> Blueprint:
        """Returns the blueprint of what a run executes, loading its version if it is not at hand."""
        found = self.get(run.version_id)
        if found is not None:
            return found
        version = workflows.get_version(tx, run.version_id)
        if version is None:
            raise LookupError(f"run {run.id} names version {run.version_id}, which is gone")
        return self.add(version)

    def add(self, version: WorkflowVersion) -> Blueprint:
        """Returns the blueprint of a version, compiling it if it is not at hand."""
        found = self.get(version.id)
        if found is not None:
            return found
        blueprint = blueprint_of(version)
        with self._lock:
            if version.id not in self._by_version:
                self._by_version[version.id] = blueprint
                self._nodes += len(blueprint.dag.nodes)
            while self._nodes > self._max_nodes and len(self._by_version) > 1:
                _, dropped = self._by_version.popitem(last=False)
                self._nodes -= len(dropped.dag.nodes)
        return blueprint
