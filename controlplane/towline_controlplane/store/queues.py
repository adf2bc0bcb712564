"""Queues: the distinct sets of requirements that steps have of the agent that runs them."""

import json
from collections.abc import Mapping

from sqlalchemy import select

from towline_controlplane.requirements import Requirements, Size
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import to_json
from towline_controlplane.store.statements import insert_if_absent
from towline_dag.choices import Network

_INSERT_QUEUE = insert_if_absent(
    "queues", ("id", "labels", "sandbox_level", "plugin", "protocol_version", "weight", "memory_mb", "network")
)


def ensure_queues(tx: Transaction, by_id: Mapping[str, Requirements]) -> None:
    """Makes sure that the queues exist; those that do stay as they are."""
    rows = [
        (
            *(queue_id, to_json(dict(asked.labels)), int(asked.sandbox_level), asked.plugin, asked.protocol_version),
            *(asked.size.weight, asked.size.memory_mb, asked.network.value),
        )
        for queue_id, asked in sorted(by_id.items())
    ]
    tx.execute_many((_INSERT_QUEUE, rows))


def all_queues(tx: Transaction) -> dict[str, Requirements]:
    """Returns the requirements of every queue by its id."""
    queues = tables.queues.c
    asked = queues.sandbox_level, queues.plugin, queues.protocol_version, queues.weight, queues.memory_mb
    query = select(queues.id, queues.labels, queues.network, *asked)
    return {
        queue_id: Requirements(json.loads(labels), level, plugin, version, Size(*size), Network(network))
        for queue_id, labels, network, level, plugin, version, *size in tx.connection.execute(query)
    }
