"""Lists of runs: narrowed, in one of few orders, page by page. Every condition is a bound parameter."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, text

from towline_controlplane.model import Run, RunState
from towline_controlplane.store import tables
from towline_controlplane.store.columns import RUN_ENDED
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.keysets import NEWEST_FIRST, Order, Place
from towline_controlplane.store.rows import RUN
from towline_controlplane.store.runs import visible_runs

BY_END = "end_time"

_ENDED = frozenset(RUN_ENDED)
_LABELLED = {
    "sqlite": "NOT EXISTS (SELECT 1 FROM json_each(:labels) AS wanted WHERE NOT EXISTS ("
    "SELECT 1 FROM json_each(runs.labels) AS own WHERE own.key = wanted.key AND own.value = wanted.value))",
    "postgresql": "CAST(runs.labels AS jsonb) @> CAST(:labels AS jsonb)",
}


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What a list of runs is narrowed to; None or nothing means all. Times (µs) are not included themselves."""

    owner_id: str | None = None
    workflow_id: str | None = None
    states: frozenset[RunState] = frozenset()
    created_after: int | None = None
    created_before: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


def list_runs(
    tx: Transaction, narrow: RunFilter, after: Place | None, limit: int, order: Order = NEWEST_FIRST
) -> list[Run]:
    """Returns runs from behind `after`; by their end only those that have one."""
    query = _narrowed(tx, narrow)
    if order.column == BY_END:
        query = query.where(tables.runs.c.end_time.is_not(None))
    return RUN.all(tx.connection, order.page(query, tables.runs, after, limit))


def _narrowed(tx: Transaction, narrow: RunFilter) -> Select[Any]:
    runs = tables.runs.c
    conditions: list[ColumnElement[bool]] = []
    if narrow.workflow_id is not None:
        conditions.append(runs.workflow_id == narrow.workflow_id)
    if narrow.states:
        conditions.append(runs.state.in_(sorted(state.value for state in narrow.states)))
    if narrow.states and not narrow.states & _ENDED:
        conditions.append(text(tables.RUN_OPEN))  # pyright: ignore[reportArgumentType] - it is a condition
    if narrow.created_after is not None:
        conditions.append(runs.create_time > narrow.created_after)
    if narrow.created_before is not None:
        conditions.append(runs.create_time < narrow.created_before)
    query = visible_runs(narrow.owner_id).where(*conditions)
    if narrow.labels:
        query = query.where(text(_LABELLED[tx.dialect]).bindparams(labels=json.dumps(dict(narrow.labels))))
    return query
