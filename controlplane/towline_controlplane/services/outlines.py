"""What reads need of a workflow version: what its nodes call, and which of them have no successor.

Versions never change, so an outline once made stays true. Used by the reader threads of the database.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from towline_controlplane.engine.transitions import RUN_TERMINAL
from towline_controlplane.model import Output, Run, WorkflowVersion
from towline_controlplane.store import runs, workflows
from towline_controlplane.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Outline:
    """`types` names what each node calls, by node id; `last` are the nodes without outgoing edge."""

    types: Mapping[str, str]
    last: tuple[str, ...]
    input_schema: Mapping[str, Any] | None
    maps_output: bool


class Outlines:
    """The most recently used outlines by version id."""

    def __init__(self, max_versions: int = 64) -> None:
        self._max_versions = max_versions
        self._lock = threading.Lock()
        self._by_version: OrderedDict[str, Outline] = OrderedDict()

    def get(self, tx: Transaction, version_id: str) -> Outline:
        """Returns the outline of a version that some run has."""
        known = self._known(version_id)
        if known is not None:
            return known
        version = workflows.get_version(tx, version_id)
        if version is None:
            raise LookupError(f"a run names version {version_id}, which is gone")
        return self.add(version)

    def add(self, version: WorkflowVersion) -> Outline:
        """Returns the outline of a version, and keeps it."""
        known = self._known(version.id)
        if known is not None:
            return known
        outline = outline_of(version)
        with self._lock:
            self._by_version[version.id] = outline
            while len(self._by_version) > self._max_versions:
                self._by_version.popitem(last=False)
        return outline

    def _known(self, version_id: str) -> Outline | None:
        with self._lock:
            known = self._by_version.get(version_id)
            if known is not None:
                self._by_version.move_to_end(version_id)
            return known

    def outputs_of(self, tx: Transaction, run: Run) -> dict[str, Output] | None:
        """Returns the outputs of the last steps of a run that has ended; None before, or if its workflow maps them."""
        if run.state not in RUN_TERMINAL or self.get(tx, run.version_id).maps_output:
            return None
        return dict(sorted(runs.output_steps(tx, run.id, self.get(tx, run.version_id).last).items()))


def outline_of(version: WorkflowVersion) -> Outline:
    """Returns the outline of a version."""
    document: dict[str, Any] = json.loads(version.dag)
    sources = {edge["from"] for edge in document["edges"]}
    node_ids = [node["id"] for node in document["nodes"]]
    types = {node_id: version.plugins[node_id].name for node_id in node_ids}
    last = tuple(node_id for node_id in node_ids if node_id not in sources)
    return Outline(types, last, document.get("inputSchema"), "output" in document)
