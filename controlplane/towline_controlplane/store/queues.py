"""Queues: the distinct sets of labels that steps require of the agent that runs them."""

import json
from collections.abc import Mapping

from sqlalchemy import select

from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import insert_if_absent, to_json


def ensure_queues(tx: Transaction, labels_by_id: Mapping[str, Mapping[str, str]]) -> None:
    """Makes sure that the queues exist; those that do stay as they are."""
    for queue_id, labels in sorted(labels_by_id.items()):
        insert_if_absent(tx.connection, tables.queues, {"id": queue_id, "labels": to_json(dict(labels))})


def all_queues(tx: Transaction) -> dict[str, dict[str, str]]:
    """Returns the labels of every queue by its id."""
    query = select(tables.queues.c.id, tables.queues.c.labels)
    return {queue_id: json.loads(labels) for queue_id, labels in tx.connection.execute(query)}
