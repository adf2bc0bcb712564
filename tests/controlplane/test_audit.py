"""The auditor finds nothing in a store that is in order, and each single thing that is not."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from audited_store import Sample, live
from rig import control_plane

from towline_controlplane.audit.auditor import audit_database
from towline_controlplane.audit.findings import Breach
from towline_controlplane.audit.history import RUN_LINES, STEP_LINES
from towline_controlplane.model import EventType
from towline_controlplane.store.database import Database


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("audited")

    async def make() -> dict[str, str]:
        async with control_plane(folder) as rig:
            return await live(rig)

    return Sample(folder, asyncio.run(make()))


def audit(path: Path) -> list[Breach]:
    async def look() -> list[Breach]:
        database = Database.open(f"sqlite:///{path}", read_only=True)
        try:
            return list((await audit_database(database)).breaches)
        finally:
            await database.close()

    return asyncio.run(look())


def break_rows(path: Path, script: str) -> None:
    """Does what no part of the product can: writes past the constraints."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.executescript(script)
    connection.close()


CANCELLED = "RUN_CANCEL_REQUESTED"
READY = "STEP_READY"
PERMANENT = '{{"kind":"PERMANENT","code":"BROKEN","message":"it broke"}}'


def append(kind: str, node: str, run: str = "running") -> str:
    """A line at the end of a history."""
    return (
        f"UPDATE runs SET event_count = event_count + 1 WHERE id = '{{{run}}}';"
        f" INSERT INTO events (run_id, sequence, time, type, node_id, attempt, details)"
        f" SELECT id, event_count, create_time, '{kind}', '{node}', 1, '{{{{}}}}' FROM runs WHERE id = '{{{run}}}';"
    )


def swap(run: str, kind: str, later: str) -> str:
    """Two lines of a history, one for the other."""
    first, second = (
        f"(SELECT min(sequence) FROM events WHERE run_id = '{{{run}}}' AND type = '{name}')" for name in (kind, later)
    )
    return (
        f"CREATE TEMP TABLE places AS SELECT {first} AS a, {second} AS b;"
        f" UPDATE events SET sequence = -1 WHERE run_id = '{{{run}}}' AND sequence = (SELECT a FROM places);"
        f" UPDATE events SET sequence = (SELECT a FROM places) WHERE run_id = '{{{run}}}'"
        "  AND sequence = (SELECT b FROM places);"
        f" UPDATE events SET sequence = (SELECT b FROM places) WHERE run_id = '{{{run}}}' AND sequence = -1;"
    )


def update(table: str, settings: str, run: str, where: str = "node_id = 'a'") -> str:
    return f"UPDATE {table} SET {settings} WHERE run_id = '{{{run}}}' AND {where};"


def of_run(settings: str, run: str) -> str:
    return f"UPDATE runs SET {settings} WHERE id = '{{{run}}}';"


def of_dag(old: str, new: str) -> str:
    return f"UPDATE workflow_versions SET dag = replace(dag, '{old}', '{new}');"


def as_slot(run: str) -> str:
    """The history of a run that waited for a slot instead of a pause."""
    queued = update("events", "type = 'RUN_QUEUED'", run, "type = 'RUN_PAUSED'")
    return queued + update("events", "type = 'RUN_ADMITTED'", run, "type = 'RUN_RESUMED'")


OFFER_OF_B = "type = 'STEP_OFFERED' AND node_id = 'b'"
START_OF_B = "type = 'STEP_STARTED' AND node_id = 'b'"
SECOND_OFFER = "type = 'STEP_OFFERED' AND attempt = 2"
SECOND = '{{"agentId":"id-of-busy","epoch":2}}'
IN_GROUP = "concurrency_limit = 1, concurrency_group = 'g'"
NOT_OVERDUE = "deadline_reached = 0, state = 'CANCELLED', error = NULL"
SLOT = "INSERT INTO concurrency_slots VALUES ('g', 0, '{failed}', 0);"
NO_END = "UPDATE events SET type = 'RUN_CANCELLED' WHERE type = 'RUN_TIMED_OUT'"
LAST_CHUNK = "start = 4"

# The invariant, what is wrong, the run that it is wrong with, and how it is made wrong.
BROKEN: list[tuple[str, str, str, str]] = [
    ("I1", "attempt without its end", "retried", update("attempts", "end_time = NULL", "retried", "number = 1")),
    ("I1", "step ended twice", "running", append("STEP_SUCCEEDED", "a")),
    ("I1", "line after the end", "succeeded", append("RUN_STARTED", "", "succeeded")),
    ("I2", "started by another", "running", update("events", "details = '{{}}'", "running", START_OF_B)),
    ("I3", "epoch of a step", "running", update("steps", "epoch = 7", "running")),
    ("I3", "epoch of an attempt", "retried", update("attempts", "epoch = 9", "retried", "number = 1")),
    ("I3", "epoch of a hand-out", "running", update("events", f"details = '{SECOND}'", "running", "sequence = 3")),
    ("I3", "holder", "running", update("steps", "agent_id = 'another'", "running", "node_id = 'b'")),
    ("I3", "next attempt of a lease", "running", update("steps", "next_attempt = 2", "running", "node_id = 'b'")),
    ("I3", "open attempt of nobody", "lapsed", update("steps", "next_attempt = 2", "lapsed")),
    ("I4", "failures", "retried", update("steps", "failures = 0", "retried")),
    ("I4", "losses", "retried", update("steps", "losses = 1", "retried")),
    ("I4", "newest attempt", "failed", update("steps", "attempt = 2", "failed")),
    ("I4", "key", "retried", update("attempts", "execution_key = 'another'", "retried", "number = 1")),
    ("I4", "budget", "retried", of_dag('"maxAttempts": 2', '"maxAttempts": 1')),
    ("I4", "number handed out", "running", update("events", "attempt = 2", "running", OFFER_OF_B)),
    ("I4", "attempts before the retry of the run", "again", update("steps", "attempt_base = 0, failures = 1", "again")),
    ("I5", "open edges", "running", update("steps", "open_edges = 0", "running", "node_id = 'c'")),
    ("I5", "satisfied edges", "succeeded", update("steps", "satisfied_edges = 1", "succeeded", "node_id = 'd'")),
    ("I5", "output that a condition read", "succeeded", update("steps", "output = '{{\"n\":1}}'", "succeeded")),
    ("I5", "output that a condition needs", "succeeded", update("steps", "output = '{{}}'", "succeeded")),
    ("I5", "condition", "succeeded", of_dag("output.n > 1", "output.n > 2")),
    ("I6", "open steps", "running", of_run("open_steps = 3", "running")),
    ("I6", "failed steps", "failed", of_run("failed_steps = 2", "failed")),
    ("I6", "end of a run", "succeeded", of_run("end_time = NULL", "succeeded")),
    ("I6", "end of a step", "succeeded", update("steps", "end_time = NULL", "succeeded")),
    ("I6", "error", "failed", of_run("error = NULL", "failed")),
    ("I6", "output", "succeeded", of_run("output = '1'", "succeeded")),
    ("I7", "output of a failure", "failed", update("steps", "output = '1'", "failed")),
    ("I9", "report", "succeeded", update("attempts", "report_digest = NULL", "succeeded")),
    ("I10", "request of another's run", "succeeded", of_run("owner_id = 'another'", "succeeded")),
    ("I11", "gate", "paused", update("steps", "held = 0", "paused")),
    ("I11", "hand-out while paused", "resumed", swap("resumed", "RUN_RESUMED", "STEP_OFFERED")),
    ("I12", "open after the cancel", "running", of_run("cancel_requested = 1", "running") + append(CANCELLED, "")),
    ("I12", "hand-out after the cancel", "cancelling", swap("cancelling", "STEP_OFFERED", CANCELLED)),
    ("I13", "time of the hand-out", "retried", update("events", "time = 0", "retried", SECOND_OFFER)),
    ("I13", "time of the attempt", "retried", update("attempts", "create_time = 0", "retried", "number = 2")),
    ("I13", "class", "retried", update("attempts", f"error = '{PERMANENT}'", "retried", "number = 1")),
    ("I13", "delay", "retried", update("steps", "not_before = 0", "retried")),
    ("I14", "gap in a log", "succeeded", update("log_chunks", "start = 5", "succeeded", LAST_CHUNK)),
    ("I14", "bytes of a log", "succeeded", update("log_chunks", "data = x'00'", "succeeded", LAST_CHUNK)),
    ("I14", "size of a log", "succeeded", update("attempt_logs", "size = 9", "succeeded")),
    ("I14", "number of chunks", "succeeded", update("run_logs", "chunks = 3", "succeeded", "1 = 1")),
    ("I14", "numbering of chunks", "succeeded", update("log_chunks", "arrival = 9", "succeeded", LAST_CHUNK)),
    ("I14", "chunks of nothing", "succeeded", "DELETE FROM attempt_logs"),
    (
        "I14",
        "size of nothing",
        "failed",
        "INSERT INTO attempt_logs (run_id, node_id, attempt, size, final) VALUES ('{failed}', 'a', 1, 4, 1)",
    ),
    ("I14", "object of nothing", "succeeded", update("attempt_logs", "archived_size = size", "succeeded")),
    (
        "I14",
        "log of no attempt",
        "failed",
        "INSERT INTO attempt_logs (run_id, node_id, attempt, size, final) VALUES ('{failed}', 'a', 2, 0, 1)",
    ),
    ("I15", "gap", "succeeded", "DELETE FROM events WHERE run_id = '{succeeded}' AND sequence = 4"),
    ("I15", "end cut off", "succeeded", of_run("event_count = event_count + 1", "succeeded")),
    ("I16", "state of a run", "paused", of_run("state = 'RUNNING'", "paused") + update("steps", "held = 0", "paused")),
    (
        "I16",
        "state of a step",
        "running",
        append(READY, "c"),
    ),
    ("I16", "state of an attempt", "running", update("attempts", "state = 'OFFERED'", "running", "node_id = 'b'")),
    ("I16", "line of no step", "running", append(READY, "z")),
    ("I16", "line that cannot follow", "running", append("STEP_SKIPPED", "b")),
    ("I16", "flag", "running", of_run("admitted = 0", "running")),
    ("I11", "frozen while it runs", "running", of_run("frozen = 1", "running")),
    ("I16", "retries", "again", of_run("retries = 2", "again")),
    (
        "I16",
        "deadline",
        "overdue",
        of_run("deadline_reached = 0, state = 'CANCELLED', error = NULL", "overdue") + NO_END,
    ),
    ("I16", "rows of no run", "-", "UPDATE run_logs SET run_id = '-'"),
    ("I19", "slots", "", "UPDATE agents SET slots = 0"),
    ("I19", "slot beyond the limit", "limited", "UPDATE concurrency_slots SET number = 1"),
    ("I19", "slot of another group", "limited", "UPDATE concurrency_slots SET group_id = '-'"),
    (
        "I19",
        "slot of a run that has ended",
        "failed",
        of_run("concurrency_limit = 1, concurrency_group = 'g'", "failed") + SLOT,
    ),
    ("I19", "slot of nobody", "limited", "DELETE FROM concurrency_slots"),
    ("I20", "holder", "lapsed", update("attempts", "agent_id = '-'", "lapsed")),
    ("I20", "admission", "resumed", as_slot("resumed") + swap("resumed", "RUN_ADMITTED", "STEP_OFFERED")),
    ("I21", "queue", "failed", update("steps", "queue_id = '-'", "failed")),
    ("I21", "position", "failed", update("steps", "position = 9", "failed")),
    ("I21", "step missing", "failed", "DELETE FROM steps WHERE run_id = '{failed}' AND node_id = 'b'"),
    ("I21", "input", "failed", "DELETE FROM run_inputs WHERE run_id = '{failed}'"),
    ("I21", "version", "failed", of_run("version_id = '-'", "failed")),
    (
        "I22",
        "artifact without a result",
        "running",
        "INSERT INTO artifacts SELECT run_id, node_id, number, 'a', epoch, '', 0, '', 1, 0"
        " FROM attempts WHERE run_id = '{running}' AND end_time IS NULL",
    ),
    ("I22", "artifacts counted", "succeeded", update("steps", "artifact_count = 1", "succeeded")),
    ("I25", "token of a lease", "failed", update("attempts", "token_hash = 'secret'", "failed")),
    ("I25", "credential", "", "UPDATE agents SET credential_hash = 'secret'"),
    ("I25", "enrollment token", "", "UPDATE enrollment_tokens SET token_hash = 'secret'"),
    ("I25", "password", "", "UPDATE users SET password_hash = 'secret'"),
    ("I28", "queue of nobody", "waiting", "DELETE FROM queues"),
    ("I32", "place in the queue", "waiting", update("steps", "fair_key = 0", "waiting")),
    ("I30", "unreadable row", "failed", update("attempts", "error = '{{'", "failed")),
]


def test_a_store_in_order_has_no_breach(sample: Sample, tmp_path: Path) -> None:
    assert audit(sample.copy(tmp_path)) == []


@pytest.mark.parametrize(
    ("invariant", "what", "run", "script"), BROKEN, ids=[f"{invariant} {what}" for invariant, what, *_ in BROKEN]
)
def test_a_breach_is_found(sample: Sample, tmp_path: Path, invariant: str, what: str, run: str, script: str) -> None:
    path = sample.copy(tmp_path)
    break_rows(path, script.format_map(sample.runs))
    breaches = audit(path)
    assert {breach.invariant for breach in breaches} == {invariant}, breaches
    assert {breach.run_id for breach in breaches} == {sample.runs.get(run, run)}


def test_every_kind_of_line_can_be_replayed() -> None:
    assert RUN_LINES.keys() | STEP_LINES.keys() == set(EventType)
    assert not RUN_LINES.keys() & STEP_LINES.keys()
