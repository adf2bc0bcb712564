"""Queues: the distinct sets of labels that steps require of the agent that runs them."""

import json
from collections.abc import Mapping

from sqlalchemy import select

from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import to_json
from towline_controlplane.store.statements import insert_if_absent

_INSERT_QUEUE = insert_if_absent("queues", ("id", "labels"))


def ensure_queues(tx: Transaction, labels_by_id: Mapping[str, Mapping[str, str]]) -> None:
    """Makes sure that the queues exist; those that do stay as they are."""
    rows = [(queue_id, to_json(dict(labels))) for queue_id, labels in sorted(labels_by_id.items())]
    tx.execute_many((_INSERT_QUEUE, rows))


def all_queues(tx: Transaction) -> dict[str, dict[str, str]]:
    """Returns the labels of every queue by its id."""
    query = select(tables.queues.c.id, tables.queues.c.labels)
    return {queue_id: json.loads(labels) for queue_id, labels in tx.connection.execute(query)}
