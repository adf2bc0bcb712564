"""What can be handed out, what is held, and what has lapsed.

A lease is open while its attempt is, and current while its step is LEASED on that attempt and epoch; an offer that
went back keeps its attempt open, but not its lease.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, select, text, update

from towline_controlplane.model import Attempt, Lease, Step, StepState
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import ATTEMPT
from towline_controlplane.store.runs import StepKey
from towline_controlplane.store.statements import Statement, as_json

_DUE = f"{tables.CLAIMABLE} AND not_before <= ?"

# The order of the columns is that of the claims; all are in the index, so that no row is read in vain.
_CANDIDATES = Statement(
    "SELECT -priority, fair_key, run_id, position, node_id FROM steps"  # noqa: S608 - our own names, here and below
    f" WHERE queue_id = ? AND {_DUE} ORDER BY priority DESC, fair_key, run_id, position LIMIT ?"
)
_FIRST_KEY = Statement(
    "SELECT fair_key FROM steps"  # noqa: S608
    f" WHERE queue_id = ? AND priority = ? AND {tables.CLAIMABLE} AND not_before <= ? ORDER BY fair_key LIMIT 1"
)
_CANDIDATES_OF_ALL = Statement(
    "SELECT q.number, c.* FROM json_array_elements_text(?::json) WITH ORDINALITY AS q (id, number)"  # noqa: S608
    " CROSS JOIN LATERAL (SELECT -priority, fair_key, run_id, position, node_id FROM steps"
    f" WHERE queue_id = q.id AND {_DUE} ORDER BY priority DESC, fair_key, run_id, position LIMIT ?) AS c"
)
_COUNT_EVENTS_OF = Statement("SELECT r.id, r.event_count FROM runs r WHERE r.id IN {ids}")
# Beside other control planes: the runs are locked one by one as steps are taken from them, and those that somebody else
# has locked are passed over, so that a claim never waits while it holds a lock.
_LOCK_RUNS_OF = Statement(
    "SELECT k.step ->> 0, k.step ->> 1, r.event_count"
    " FROM json_array_elements(?::json) WITH ORDINALITY AS k (step, number)"
    " JOIN runs r ON r.id = k.step ->> 0 ORDER BY k.number LIMIT ? {lock} SKIP LOCKED"
)
_COUNT_AHEAD = Statement(
    f"SELECT count(*) FROM (SELECT 1 FROM steps WHERE queue_id = ? AND {_DUE}"  # noqa: S608
    " AND (-priority, fair_key, run_id, position) < (?, ?, ?, ?) LIMIT ?) AS ahead"
)
_SPARE = 64
"""Candidates beyond those wanted, in case that some have to be passed over."""


@dataclass(frozen=True, slots=True)
class OpenLease:
    """An attempt that its agent holds, and what is wanted of it: an end if its run is being cancelled, or a stand."""

    attempt: Attempt
    cancel_requested: bool
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class Claimable:
    """Steps that were READY, not held and due a moment ago, and the numbers of the newest events of their runs."""

    keys: Sequence[StepKey]
    event_counts: Mapping[str, int]


def lock_claimable(tx: Transaction, queue_ids: Collection[str], limit: int, chance: float = 0.0) -> Claimable:
    """Returns steps to hand out, those of the highest priority first, and queues in turn.

    `chance` in [0, 1) picks the queue that begins. Their runs are locked: another one that asks meanwhile gets others.
    Steps of runs that another transaction has locked are left out. Between its selection and the lock of its run a
    step may have been taken: what counts is the step as it is under the lock.
    """
    return _LOCK[tx.dialect](tx, sorted(set(queue_ids)), limit, chance)


def first_due(tx: Transaction, queue_id: str) -> StepKey | None:
    """Returns the step that goes next in a queue, without a lock."""
    rows = tx.fetch(_CANDIDATES, queue_id, tx.now, 1)
    return (rows[0][2], rows[0][4]) if rows else None


def is_claimable(step: Step, now: int) -> bool:
    """Tells whether a step of a locked run can be handed out."""
    return step.state is StepState.READY and not step.held and step.not_before <= now


def _lock_alone(tx: Transaction, queue_ids: Sequence[str], limit: int, chance: float) -> Claimable:
    keys = _keys([tx.fetch(_CANDIDATES, queue_id, tx.now, limit) for queue_id in queue_ids], chance)[:limit]
    counts = tx.fetch(_COUNT_EVENTS_OF, as_json(run_id for run_id, _ in keys)) if keys else ()
    return Claimable(keys, dict(counts))


def _lock_beside_others(tx: Transaction, queue_ids: Sequence[str], limit: int, chance: float) -> Claimable:
    queues: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for number, *row in tx.fetch(_CANDIDATES_OF_ALL, as_json(queue_ids), tx.now, limit + _SPARE):
        queues[number].append(tuple(row))
    keys = _keys([queues[number] for number in sorted(queues)], chance)[: limit + _SPARE]
    locked = tx.fetch(_LOCK_RUNS_OF, json.dumps(keys), limit) if keys else []
    return Claimable([(run_id, node_id) for run_id, node_id, _ in locked], {run_id: n for run_id, _, n in locked})


_LOCK = {"sqlite": _lock_alone, "postgresql": _lock_beside_others}


def _keys(queues: Iterable[Sequence[tuple[Any, ...]]], chance: float) -> list[StepKey]:
    candidates = in_turn([rows for rows in queues if rows], chance)
    return [(run_id, node_id) for *_, run_id, _, node_id in candidates]


def count_ahead(tx: Transaction, step: Step, at_most: int) -> int:
    """Returns how many steps of its queue a claim takes before a READY step, counted up to `at_most`."""
    place = -step.priority, step.fair_key, step.run_id, step.position
    return tx.fetch(_COUNT_AHEAD, step.queue_id, tx.now, *place, at_most)[0][0]


def in_turn(queues: Sequence[Sequence[tuple[Any, ...]]], chance: float) -> list[tuple[Any, ...]]:
    """Returns the rows of all queues by their first column, and among equals one of each queue in turn.

    Fair keys of different queues cannot be compared. `chance` in [0, 1) picks the queue that begins, so that even
    those who take one row at a time come to every queue. The order within a queue is kept.
    """
    first = int(chance * len(queues))
    placed: list[tuple[int, int, int, tuple[Any, ...]]] = []
    for number, rows in enumerate(queues):
        taken: Counter[int] = Counter()
        for row in rows:
            placed.append((row[0], taken[row[0]], (number - first) % len(queues), row))
            taken[row[0]] += 1
    return [row for *_, row in sorted(placed)]


def first_fair_keys(tx: Transaction, lanes: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Returns the fair key of the step that goes next in each of the lanes (queue id, priority) that has one."""
    found = ((lane, tx.fetch(_FIRST_KEY, *lane, tx.now)) for lane in lanes)
    return {lane: rows[0][0] for lane, rows in found if rows}


def overdue_queue_waits(tx: Transaction, limit: int) -> list[tuple[str, str]]:
    """Returns the READY steps (run id, node id) that no agent took in time, the most overdue first."""
    steps = tables.steps.c
    query = select(steps.run_id, steps.node_id).where(text(tables.QUEUE_TIMED), steps.queue_deadline <= tx.now)
    rows = tx.connection.execute(query.order_by(steps.queue_deadline).limit(limit))
    return [(run_id, node_id) for run_id, node_id in rows]


def expired_offers(tx: Transaction, limit: int) -> list[tuple[str, str]]:
    """Returns the steps (run id, node id) whose current offer has lapsed unconfirmed, the oldest first."""
    attempts = tables.attempts.c
    query = (
        select(attempts.run_id, attempts.node_id)
        .select_from(held_attempts())
        .where(text(f"attempts.{tables.OFFERED}"), attempts.offer_expire_time <= tx.now)
        .order_by(attempts.offer_expire_time)
        .limit(limit)
    )
    return [(run_id, node_id) for run_id, node_id in tx.connection.execute(query)]


def open_leases(tx: Transaction, agent_id: str) -> list[OpenLease]:
    """Returns what an agent holds: open attempts on which steps are LEASED."""
    attempts, runs = tables.attempts, tables.runs
    query = (
        select(*ATTEMPT.columns(attempts), runs.c.cancel_requested, runs.c.frozen)
        .select_from(held_attempts().join(runs, runs.c.id == attempts.c.run_id))
        .where(attempts.c.end_time.is_(None), attempts.c.agent_id == agent_id)
    )
    return [OpenLease(ATTEMPT.load(row[:-2]), *row[-2:]) for row in tx.connection.execute(query)]


def leases_of_other_sessions(tx: Transaction, agent_id: str, session_id: str) -> list[Attempt]:
    """Returns what an agent holds from sessions other than `session_id`."""
    attempts = tables.attempts.c
    query = (
        select(*ATTEMPT.columns(tables.attempts))
        .select_from(held_attempts())
        .where(attempts.end_time.is_(None), attempts.agent_id == agent_id, attempts.session_id != session_id)
    )
    return ATTEMPT.all(tx.connection, query)


def adopt_many_if_leased(tx: Transaction, agent_id: str, session_id: str, presented: Iterable[Lease]) -> None:
    """Makes attempts of an agent part of its session `session_id`, those only whose lease is presented."""
    attempts = tables.attempts.c
    for lease in sorted(presented, key=lambda lease: (lease.run_id, lease.node_id, lease.attempt)):
        guard = (
            *(attempts.run_id == lease.run_id, attempts.node_id == lease.node_id, attempts.number == lease.attempt),
            *(attempts.epoch == lease.epoch, attempts.token_hash == lease.token_hash),
            *(attempts.agent_id == agent_id, attempts.end_time.is_(None)),
        )
        tx.connection.execute(update(tables.attempts).where(*guard).values(session_id=session_id))


def due_after(tx: Transaction, after: int, limit: int) -> list[tuple[int, str]]:
    """Returns (not_before, queue id) of the delayed READY steps that fall due after `after`, the earliest first."""
    steps = tables.steps.c
    query = (
        select(steps.not_before, steps.queue_id)
        .where(text(tables.DELAYED), steps.not_before > after)
        .order_by(steps.not_before)
        .limit(limit)
    )
    return [(not_before, queue_id) for not_before, queue_id in tx.connection.execute(query)]


def held_attempts() -> FromClause:
    """Returns the join of attempts with the steps that are LEASED on them."""
    return tables.attempts.join(tables.steps, _is_current(tables.attempts.c, tables.steps.c))


def _is_current(attempts: Any, steps: Any) -> ColumnElement[bool]:
    return and_(
        steps.run_id == attempts.run_id,
        steps.node_id == attempts.node_id,
        steps.attempt == attempts.number,
        steps.epoch == attempts.epoch,
        steps.state == StepState.LEASED.value,
    )
