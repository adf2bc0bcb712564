"""Runs with their steps, attempts and history: loaded by key, saved many at a time. Lists of runs: `run_lists`."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Select, or_, select, text

from towline_controlplane.model import Attempt, Event, Output, Run, Step
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import ATTEMPT, EVENT, RUN, STEP
from towline_controlplane.store.statements import (
    Statement,
    as_json,
    insert,
    insert_if_absent,
    listed,
    upsert,
)
from towline_controlplane.store.updates import Updates

K = TypeVar("K")
T = TypeVar("T")

StepKey = tuple[str, str]
"""Run id and node id."""

AttemptKey = tuple[str, str, int]
"""Run id, node id and number."""

RequestKey = tuple[str, str]
"""Owner id and idempotency key."""

_RUN_ROW = tuple(name for name in RUN.names if name != "input")
_RUN_CHANGES = (
    *("state", "cancel_requested", "open_steps", "failed_steps"),
    *("event_count", "start_time", "end_time", "error"),
    *("output", "retries", "deadline", "deadline_reached", "admitted", "frozen"),
)
_RUN_KEY = ("id",)
_STEP_KEY = ("run_id", "node_id")
_ATTEMPT_KEY = ("run_id", "node_id", "number")
_STEP_CHANGES = tuple(name for name in STEP.names if name not in (*_STEP_KEY, "position", "map_index"))

_INSERT_RUN = insert("runs", _RUN_ROW)
_INSERT_INPUT = insert("run_inputs", ("run_id", "input"))
_INSERT_STEP = insert("steps", STEP.names)
_INSERT_EVENT = insert("events", EVENT.names)
_PUT_ATTEMPT_IF_OPEN = upsert("attempts", ATTEMPT.names, key=_ATTEMPT_KEY, only_if="attempts.end_time IS NULL")

_RUN_LIST = ", ".join("i.input" if name == "input" else f"r.{name}" for name in RUN.names)
_LOCK_RUNS = Statement(
    "SELECT r.id, r.event_count FROM runs r"
    " WHERE r.id IN {ids} AND (r.end_time IS NULL OR r.end_time > 0) ORDER BY r.id {lock}"
)
_LOAD_RUNS = Statement(
    f"SELECT {_RUN_LIST} FROM runs r JOIN run_inputs i ON i.run_id = r.id"  # noqa: S608
    " WHERE r.id IN {ids} ORDER BY r.id"
)
_LOAD_STEPS = Statement(
    f"SELECT {listed(STEP.names, 's')} FROM {{keys}} CROSS JOIN steps s"  # noqa: S608
    " WHERE s.run_id = k.run_id AND s.node_id = k.node_id"
)
_LOAD_ATTEMPTS = Statement(
    f"SELECT {listed(ATTEMPT.names, 'a')} FROM {{keys}} CROSS JOIN steps s CROSS JOIN attempts a"  # noqa: S608
    " WHERE s.run_id = k.run_id AND s.node_id = k.node_id"
    " AND a.run_id = s.run_id AND a.node_id = s.node_id AND a.number = s.attempt"
)
_LOAD_ALL_ATTEMPTS = Statement(
    f"SELECT {listed(ATTEMPT.names, 'a')} FROM {{keys}} CROSS JOIN attempts a"  # noqa: S608
    " WHERE a.run_id = k.run_id AND a.node_id = k.node_id"
)
_LOAD_OUTPUTS = Statement(
    "SELECT s.run_id, s.node_id, s.output, s.output_digest FROM {keys} CROSS JOIN steps s"
    " WHERE s.run_id = k.run_id AND s.node_id = k.node_id AND s.state = 'SUCCEEDED'"
    " AND (s.output IS NOT NULL OR s.output_digest IS NOT NULL)"
)

_TAKE_KEY_IF_FREE = insert_if_absent("requests", ("owner_id", "request_id", "digest", "run_id", "create_time"))
_LOAD_REQUESTS = Statement(
    "SELECT q.owner_id, q.request_id, q.digest, q.run_id FROM {keys} CROSS JOIN requests q"
    " WHERE q.owner_id = k.run_id AND q.request_id = k.node_id"
)

_RUN_UPDATES = Updates(RUN, "runs", _RUN_KEY)
_STEP_UPDATES = Updates(STEP, "steps", _STEP_KEY)
# Said so that no planner takes the index of the open attempts for it, which is not the way to one attempt.
_ATTEMPT_UPDATES_IF_OPEN = Updates(ATTEMPT, "attempts", _ATTEMPT_KEY, only_if="coalesce(t.end_time, -1) = -1")

_new_run = RUN.picker(_RUN_ROW)


@dataclass(frozen=True, slots=True)
class Stored:
    """Rows as the database has them."""

    runs: Mapping[str, Run] = field(default_factory=dict[str, Run])
    steps: Mapping[StepKey, Step] = field(default_factory=dict[StepKey, Step])
    attempts: Mapping[AttemptKey, Attempt] = field(default_factory=dict[AttemptKey, Attempt])


NOTHING_KNOWN = Stored()


class RowMissing(Exception):
    """A row to change is not there, or is an attempt that has ended: a defect of the caller."""


@dataclass(frozen=True, slots=True)
class Request:
    """An idempotency key, and the digest of what came with it for which run."""

    owner_id: str
    request_id: str
    digest: str
    run_id: str

    @property
    def key(self) -> RequestKey:
        """Keys of different owners never collide."""
        return self.owner_id, self.request_id


def insert_runs(tx: Transaction, runs: Iterable[Run], steps: Iterable[Step], events: Iterable[Event]) -> None:
    """Inserts runs with all their steps and first events."""
    runs = tuple(runs)
    tx.execute_many(
        (_INSERT_RUN, [_new_run(run) for run in runs]),
        (_INSERT_INPUT, [(run.id, run.input) for run in runs]),
        (_INSERT_STEP, [STEP.values(step) for step in steps]),
        (_INSERT_EVENT, [EVENT.values(event) for event in events]),
    )


def lock_runs(tx: Transaction, run_ids: Collection[str]) -> dict[str, int]:
    """Returns the number of the newest event of those of the runs that exist, locked until the transaction ends.

    They are locked in the order of their ids, so that two that lock several never wait for one another.
    """
    return dict(tx.fetch(_LOCK_RUNS, as_json(run_ids)))


def load_runs(tx: Transaction, run_ids: Collection[str]) -> list[Run]:
    """Returns those of the runs that exist, each once."""
    return [RUN.load(row) for row in tx.fetch(_LOAD_RUNS, as_json(run_ids))]


def load_steps(tx: Transaction, keys: Collection[StepKey]) -> list[Step]:
    """Returns those of the steps that exist, each once."""
    return [STEP.load(row) for row in tx.fetch(_LOAD_STEPS, as_json(keys))]


def load_newest_attempts(tx: Transaction, keys: Collection[StepKey]) -> list[Attempt]:
    """Returns the newest attempt of each of the steps that has one."""
    return [ATTEMPT.load(row) for row in tx.fetch(_LOAD_ATTEMPTS, as_json(keys))]


def load_all_attempts(tx: Transaction, keys: Collection[StepKey]) -> list[Attempt]:
    """Returns all attempts of the steps, in no particular order."""
    return [ATTEMPT.load(row) for row in tx.fetch(_LOAD_ALL_ATTEMPTS, as_json(keys))]


def load_outputs(tx: Transaction, keys: Collection[StepKey]) -> dict[StepKey, Output]:
    """Returns the outputs of those of the steps that SUCCEEDED with one."""
    return {(run_id, node_id): Output(*output) for run_id, node_id, *output in tx.fetch(_LOAD_OUTPUTS, as_json(keys))}


def load_open_steps(tx: Transaction, run_id: str) -> list[Step]:
    """Returns the steps of a run that have not ended, in the order of the DAG."""
    steps = tables.steps.c
    return STEP.all(tx.connection, _steps(run_id).where(steps.end_time.is_(None)).order_by(steps.position))


def load_all_steps(tx: Transaction, run_id: str) -> list[Step]:
    """Returns every step of a run, in the order of the DAG."""
    return STEP.all(tx.connection, _steps(run_id).order_by(tables.steps.c.position))


def overdue_runs(tx: Transaction, limit: int) -> list[str]:
    """Returns open runs past their deadline that are not being stopped, the most overdue first."""
    runs = tables.runs.c
    query = select(runs.id).where(text(tables.RUN_TIMED), runs.deadline <= tx.now, runs.cancel_requested.is_(False))
    return list(tx.connection.scalars(query.order_by(runs.deadline).limit(limit)))


def save_changes(
    tx: Transaction,
    runs: Iterable[Run] = (),
    steps: Iterable[Step] = (),
    attempts: Iterable[Attempt] = (),
    events: Iterable[Event] = (),
    stored: Stored = NOTHING_KNOWN,
) -> None:
    """Updates runs and steps, inserts or replaces attempts, inserts events; of a row that comes twice the later stands.

    Of rows that are known as `stored` only the columns that differ are written. Raises RowMissing when a run or step
    is not there, or when an attempt has ended before (I1). What is fixed when a run is created (owner, input, labels,
    position, …) is left as it is.
    """
    last_steps = {(step.run_id, step.node_id): step for step in steps}
    last_attempts = {(attempt.run_id, attempt.node_id, attempt.number): attempt for attempt in attempts}
    known_runs, other_runs = _split({run.id: run for run in runs}, stored.runs)
    known_steps, other_steps = _split(last_steps, stored.steps)
    known_attempts, other_attempts = _split(last_attempts, stored.attempts)
    batches = [
        *_RUN_UPDATES.of_differing(known_runs),
        _RUN_UPDATES.of_all(_RUN_CHANGES, other_runs),
        *_STEP_UPDATES.of_differing(known_steps),
        _STEP_UPDATES.of_all(_STEP_CHANGES, other_steps),
        *_ATTEMPT_UPDATES_IF_OPEN.of_differing(known_attempts),
        (_PUT_ATTEMPT_IF_OPEN, [ATTEMPT.values(attempt) for attempt in other_attempts]),
        (_INSERT_EVENT, [EVENT.values(event) for event in events]),
    ]
    for (statement, rows), changed in zip(batches, tx.execute_many(*batches), strict=True):
        if changed != len(rows):
            raise RowMissing(f"{changed} of {len(rows)} rows changed: {statement.text[tx.dialect][:60]}…")


def _split(rows: Mapping[K, T], stored: Mapping[K, T]) -> tuple[list[tuple[T, T]], list[T]]:
    known = [(stored[key], row) for key, row in rows.items() if key in stored]
    return known, [row for key, row in rows.items() if key not in stored]


def get_run(tx: Transaction, run_id: str, owner_id: str | None) -> Run | None:
    """Returns a run if it is the owner's; owner None sees all."""
    return RUN.first(tx.connection, visible_runs(owner_id).where(tables.runs.c.id == run_id))


def list_steps(tx: Transaction, run_id: str, after_position: int, limit: int) -> list[Step]:
    """Returns steps in the order of the DAG, from behind `after_position` (-1: from the first)."""
    position = tables.steps.c.position
    return STEP.all(tx.connection, _steps(run_id).where(position > after_position).order_by(position).limit(limit))


def get_step(tx: Transaction, run_id: str, node_id: str) -> Step | None:
    """Returns a step."""
    return STEP.first(tx.connection, _steps(run_id).where(tables.steps.c.node_id == node_id))


def get_attempt(tx: Transaction, run_id: str, node_id: str, number: int) -> Attempt | None:
    """Returns an attempt of a step by its number."""
    attempts = tables.attempts.c
    query = select(*ATTEMPT.columns(tables.attempts)).where(attempts.run_id == run_id, attempts.node_id == node_id)
    return ATTEMPT.first(tx.connection, query.where(attempts.number == number))


def list_attempts(tx: Transaction, run_id: str, node_id: str) -> list[Attempt]:
    """Returns the attempts of a step in the order of their numbers."""
    attempts = tables.attempts.c
    query = select(*ATTEMPT.columns(tables.attempts)).where(attempts.run_id == run_id, attempts.node_id == node_id)
    return ATTEMPT.all(tx.connection, query.order_by(attempts.number))


def list_events(tx: Transaction, run_id: str, after_sequence: int, limit: int) -> list[Event]:
    """Returns events in order, from behind `after_sequence` (0: from the first)."""
    events = tables.events.c
    query = select(*EVENT.columns(tables.events)).where(events.run_id == run_id, events.sequence > after_sequence)
    return EVENT.all(tx.connection, query.order_by(events.sequence).limit(limit))


def output_steps(tx: Transaction, run_id: str, node_ids: Iterable[str]) -> dict[str, Output]:
    """Returns by node id the outputs of those of the nodes that SUCCEEDED with one."""
    outputs = load_outputs(tx, [(run_id, node_id) for node_id in node_ids])
    return {node_id: output for (_, node_id), output in outputs.items()}


def remember_requests(tx: Transaction, requests: Iterable[Request]) -> dict[RequestKey, Request]:
    """Takes idempotency keys, the first one to come wins (I10); returns by key who has it now.

    It waits for a transaction that is taking one of the keys, and then sees what became of it.
    """
    first = {request.key: request for request in reversed(tuple(requests))}
    rows = [(*key, request.digest, request.run_id, tx.now) for key, request in sorted(first.items())]
    tx.execute_many((_TAKE_KEY_IF_FREE, rows))
    return {row[:2]: Request(*row) for row in tx.fetch(_LOAD_REQUESTS, as_json(first))}


def visible_runs(owner_id: str | None) -> Select[Any]:
    """The query for the runs that an owner sees, None for all; one that is being deleted has ended at 0."""
    runs, inputs = tables.runs, tables.run_inputs
    query = select(*RUN.columns(runs, inputs)).select_from(runs.join(inputs))
    query = query.where(or_(runs.c.end_time.is_(None), runs.c.end_time > 0))
    return query if owner_id is None else query.where(runs.c.owner_id == owner_id)


def _steps(run_id: str) -> Select[Any]:
    return select(*STEP.columns(tables.steps)).where(tables.steps.c.run_id == run_id)
