"""What an audit reads: the rows of many runs at a time, and the rules that a query can judge by itself.

Every rule yields the rows that break it as (run id, node id, what was expected, what is there); nothing is locked.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ForeignKeyConstraint

from towline_controlplane.model import Attempt, Event, Run, Step
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import ATTEMPT, EVENT, RUN, STEP
from towline_controlplane.store.statements import Statement, as_json, listed

# The values of large columns stay in the database: whether there is one is all that most rules ask.
_LARGE = ("config", "output")
_STEP_LIST = ", ".join(
    f"CASE WHEN s.{name} IS NULL THEN NULL ELSE '' END" if name in _LARGE else f"s.{name}" for name in STEP.names
)
_RUN_LIST = ", ".join("''" if name == "input" else f"r.{name}" for name in RUN.names)
_SEEN = "(r.end_time IS NULL OR r.end_time > 0)"
"""Not so a run that is being deleted."""
_RUNS_AFTER = Statement(
    "SELECT r.id, r.event_count + (SELECT count(*) FROM steps s WHERE s.run_id = r.id) FROM runs r"
    " WHERE r.id > ? AND (r.end_time IS NULL OR r.end_time > 0) ORDER BY r.id LIMIT ?"
)
_LOAD_RUNS = Statement(f"SELECT {_RUN_LIST} FROM runs r WHERE r.id IN {{ids}} AND {_SEEN} ORDER BY r.id")  # noqa: S608
_LOAD_STEPS = Statement(
    f"SELECT {_STEP_LIST} FROM steps s WHERE s.run_id IN {{ids}} ORDER BY s.run_id, s.position"  # noqa: S608
)
_LOAD_ATTEMPTS = Statement(
    f"SELECT {listed(ATTEMPT.names, 'a')} FROM attempts a"  # noqa: S608
    " WHERE a.run_id IN {ids} ORDER BY a.run_id, a.node_id, a.number"
)
_LOAD_EVENTS = Statement(
    f"SELECT {listed(EVENT.names, 'e')} FROM events e"  # noqa: S608
    " WHERE e.run_id IN {ids} ORDER BY e.run_id, e.sequence"
)
_LOAD_INPUTS = Statement("SELECT i.run_id, i.input FROM run_inputs i WHERE i.run_id IN {ids}")

Broken = tuple[str, str, Any, Any]
"""Run id, node id, what was expected, what is there."""


@dataclass(frozen=True, slots=True)
class StoredRuns:
    """All rows of some runs, in order; without inputs, configs and outputs, of which '' says that they are there."""

    runs: Sequence[Run]
    steps: Sequence[Step]
    attempts: Sequence[Attempt]
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Rule:
    """An invariant as a query for what breaks it."""

    invariant: str
    what: str
    statement: Statement


def runs_after(tx: Transaction, after: str, limit: int) -> list[tuple[str, int]]:
    """Returns runs in the order of their ids, from behind `after`, each with the number of its steps and events."""
    return [(run_id, rows) for run_id, rows in tx.fetch(_RUNS_AFTER, after, limit)]


def load_runs(tx: Transaction, run_ids: Collection[str]) -> StoredRuns:
    """Returns all rows of these runs."""
    ids = as_json(run_ids)
    return StoredRuns(
        runs=[RUN.load(row) for row in tx.fetch(_LOAD_RUNS, ids)],
        steps=[STEP.load(row) for row in tx.fetch(_LOAD_STEPS, ids)],
        attempts=[ATTEMPT.load(row) for row in tx.fetch(_LOAD_ATTEMPTS, ids)],
        events=[EVENT.load(row) for row in tx.fetch(_LOAD_EVENTS, ids)],
    )


def load_inputs(tx: Transaction, run_ids: Collection[str]) -> dict[str, str]:
    """Returns the inputs (JSON text) of those of the runs that have one."""
    return dict(tx.fetch(_LOAD_INPUTS, as_json(run_ids)))


def broken_of_runs(tx: Transaction, rule: Rule, run_ids: Collection[str]) -> list[Broken]:
    """Returns what of these runs breaks one of RUN_RULES."""
    return [_broken(*row) for row in tx.fetch(rule.statement, as_json(run_ids))]


def broken(tx: Transaction, rule: Rule, limit: int) -> list[Broken]:
    """Returns what breaks one of INSTALLATION_RULES, at most `limit` of it."""
    return [_broken(*row) for row in tx.fetch(rule.statement, limit)]


def _broken(run_id: str, node_id: str, expected: object, found: object) -> Broken:
    return run_id, node_id, expected, found


RUN_RULES = (
    Rule(
        "I21",
        "inputs of the run",
        Statement(
            "SELECT r.id, '', 1, 0 FROM runs r WHERE r.id IN {ids}"
            " AND NOT EXISTS (SELECT 1 FROM run_inputs i WHERE i.run_id = r.id)"
        ),
    ),
    Rule(
        "I14",
        "number of the log chunk by its arrival",
        Statement(
            "SELECT run_id, '', place, arrival FROM ("
            " SELECT c.run_id, c.arrival, row_number() OVER (PARTITION BY c.run_id ORDER BY c.arrival) AS place"
            " FROM log_chunks c WHERE c.run_id IN {ids}) AS numbered WHERE arrival <> place"
            " AND NOT EXISTS (SELECT 1 FROM attempt_logs l WHERE l.run_id = numbered.run_id AND l.archived_size > 0)"
        ),
    ),
    Rule(
        "I14",
        "log chunks counted in run_logs",
        Statement(
            "SELECT run_id, '', found, chunks FROM (SELECT l.run_id, l.chunks,"
            " (SELECT count(*) FROM log_chunks c WHERE c.run_id = l.run_id)"
            " + (SELECT coalesce(sum(a.archived_chunks), 0) FROM attempt_logs a WHERE a.run_id = l.run_id) AS found"
            " FROM run_logs l WHERE l.run_id IN {ids}) AS counted WHERE chunks <> found"
        ),
    ),
    Rule(
        "I14",
        "start of a log chunk behind the one before it",
        Statement(
            "SELECT run_id, node_id, expected, start FROM ("
            " SELECT c.run_id, c.node_id, c.start, coalesce(l.archived_size, 0) + coalesce(sum(length(c.data)) OVER ("
            " PARTITION BY c.run_id, c.node_id, c.attempt ORDER BY c.arrival"
            " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS expected"
            " FROM log_chunks c LEFT JOIN attempt_logs l"
            " ON l.run_id = c.run_id AND l.node_id = c.node_id AND l.attempt = c.attempt"
            " WHERE c.run_id IN {ids}) AS placed WHERE start <> expected"
        ),
    ),
    Rule(
        "I14",
        "bytes of the log in its chunks",
        Statement(
            "SELECT stored.run_id, stored.node_id, stored.bytes, l.size - l.archived_size FROM ("
            " SELECT c.run_id, c.node_id, c.attempt, sum(length(c.data)) AS bytes"
            " FROM log_chunks c WHERE c.run_id IN {ids} GROUP BY c.run_id, c.node_id, c.attempt) AS stored"
            " LEFT JOIN attempt_logs l ON l.run_id = stored.run_id AND l.node_id = stored.node_id"
            " AND l.attempt = stored.attempt WHERE l.size IS NULL OR l.size - l.archived_size <> stored.bytes"
        ),
    ),
    Rule(
        "I14",
        "chunks of a log that has bytes",
        Statement(
            "SELECT l.run_id, l.node_id, l.size, 0 FROM attempt_logs l WHERE l.run_id IN {ids}"
            " AND l.size > l.archived_size AND NOT EXISTS (SELECT 1 FROM log_chunks c"
            " WHERE c.run_id = l.run_id AND c.node_id = l.node_id AND c.attempt = l.attempt)"
        ),
    ),
    Rule(
        "I14",
        "object of an archived log",
        Statement(
            "SELECT l.run_id, l.node_id, l.object_digest, l.archived_size FROM attempt_logs l WHERE l.run_id IN {ids}"
            " AND ((l.object_digest IS NULL) <> (l.archived_size = 0) OR l.archived_size > l.size)"
        ),
    ),
    Rule(
        "I14",
        "attempt of a log",
        Statement(
            "SELECT l.run_id, l.node_id, l.attempt, 'none' FROM attempt_logs l WHERE l.run_id IN {ids}"
            " AND NOT EXISTS (SELECT 1 FROM attempts a"
            " WHERE a.run_id = l.run_id AND a.node_id = l.node_id AND a.number = l.attempt)"
        ),
    ),
    Rule(
        "I22",
        "result that names a visible artifact",
        Statement(
            "SELECT f.run_id, f.node_id, 'the report of attempt ' || f.attempt, 'none'"
            " FROM artifacts f WHERE f.run_id IN {ids} AND f.bound AND NOT EXISTS (SELECT 1 FROM attempts a"
            " WHERE a.run_id = f.run_id AND a.node_id = f.node_id AND a.number = f.attempt"
            " AND a.report_digest IS NOT NULL)"
        ),
    ),
    Rule(
        "I22",
        "artifacts of a step that succeeded",
        Statement(
            "SELECT run_id, node_id, artifact_count, visible FROM ("
            " SELECT s.run_id, s.node_id, s.artifact_count, (SELECT count(*) FROM artifacts f"
            " WHERE f.run_id = s.run_id AND f.node_id = s.node_id AND f.attempt = s.attempt AND f.bound) AS visible"
            " FROM steps s WHERE s.run_id IN {ids} AND s.state = 'SUCCEEDED') AS counted"
            " WHERE artifact_count <> visible"
        ),
    ),
)
"""What queries can judge of runs whose ids are the parameter."""

_HEX = "0123456789abcdef"


def _unhashed(table: str, column: str, key: str) -> Rule:
    query = (
        f"SELECT '', '', 'the hash of a secret', {key} FROM {table}"  # noqa: S608 - our own names
        f" WHERE length({column}) <> 64 OR trim({column}, '{_HEX}') <> '' LIMIT ?"
    )
    return Rule("I25", f"{table}.{column}", Statement(query))


def _references() -> Iterator[Rule]:
    for table in tables.metadata.sorted_tables:
        for constraint in table.constraints:
            if isinstance(constraint, ForeignKeyConstraint):
                yield Rule("I16", f"what a row of {table.name} belongs to", Statement(_orphans(table.name, constraint)))


def _orphans(child: str, constraint: ForeignKeyConstraint) -> str:
    parent = constraint.referred_table.name
    pairs = [(element.parent.name, element.column.name) for element in constraint.elements]
    same = " AND ".join(f"p.{theirs} = c.{ours}" for ours, theirs in pairs)
    run_id = "c.run_id" if pairs[0][0] == "run_id" else "''"
    return (
        f"SELECT DISTINCT {run_id}, '', '{parent}', c.{pairs[-1][0]} FROM {child} c"  # noqa: S608 - our own names
        f" WHERE NOT EXISTS (SELECT 1 FROM {parent} p WHERE {same}) LIMIT ?"
    )


INSTALLATION_RULES = (
    # A key outlives a run that was deleted.
    Rule(
        "I10",
        "run of an idempotency key",
        Statement(
            "SELECT q.run_id, '', 'a run of ' || q.owner_id, 'one of ' || r.owner_id FROM requests q"
            " JOIN runs r ON r.id = q.run_id WHERE r.owner_id <> q.owner_id LIMIT ?"
        ),
    ),
    Rule(
        "I19",
        "attempts that an agent runs",
        Statement(
            "SELECT '', '', 'at most ' || g.slots, sum(a.weight) || ' on ' || g.name"
            " FROM attempts a JOIN agents g ON g.id = a.agent_id"
            " WHERE a.end_time IS NULL AND a.state = 'RUNNING' AND a.session_id = g.session_id"
            " GROUP BY g.id, g.name, g.slots HAVING sum(a.weight) > g.slots LIMIT ?"
        ),
    ),
    Rule(
        "I19",
        "slot of a concurrency limit",
        Statement(
            "SELECT c.run_id, '', 'an admitted run of its group, below its limit of ' || r.concurrency_limit,"
            " c.number || ' of a run that is ' || r.state FROM concurrency_slots c JOIN runs r ON r.id = c.run_id"
            " WHERE r.end_time IS NOT NULL OR NOT r.admitted OR c.number >= r.concurrency_limit"
            " OR coalesce(r.concurrency_group, '') <> c.group_id LIMIT ?"
        ),
    ),
    Rule(
        "I19",
        "slot of an admitted run",
        Statement(
            "SELECT r.id, '', 'a slot of ' || r.concurrency_group, 'none' FROM runs r"
            " WHERE r.concurrency_group IS NOT NULL AND r.admitted AND r.end_time IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM concurrency_slots c WHERE c.run_id = r.id) LIMIT ?"
        ),
    ),
    Rule(
        "I20",
        "holder of an open attempt",
        Statement(
            "SELECT a.run_id, a.node_id, 'an agent', a.agent_id FROM attempts a"
            " WHERE a.end_time IS NULL AND NOT EXISTS (SELECT 1 FROM agents g WHERE g.id = a.agent_id) LIMIT ?"
        ),
    ),
    Rule(
        "I28",
        "queue of a step that can be handed out",
        Statement(
            f"SELECT s.run_id, s.node_id, 'a queue', s.queue_id FROM steps s WHERE {tables.CLAIMABLE}"  # noqa: S608
            " AND NOT EXISTS (SELECT 1 FROM queues q WHERE q.id = s.queue_id) LIMIT ?"
        ),
    ),
    _unhashed("agents", "credential_hash", "id"),
    _unhashed("enrollment_tokens", "token_hash", "'a token of ' || create_time"),
    Rule(
        "I25",
        "users.password_hash",
        Statement(
            "SELECT '', '', 'the hash of a secret', id FROM users"
            " WHERE length(password_hash) <> 60 OR substr(password_hash, 1, 2) <> '$2' LIMIT ?"
        ),
    ),
    *_references(),
)
"""What queries can judge of the whole installation; the parameter is how many at most."""
