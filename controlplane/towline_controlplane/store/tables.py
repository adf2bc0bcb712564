"""The tables, portable between databases. The migrations create them; a test keeps the two equal.

Times are µs in BIGINT, free JSON and enums are TEXT. What a run owns leads its primary key with `run_id` and refers to
nothing but the run, so that it can be distributed and dropped by run. An index serves a query that is named beside it.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from towline_controlplane.model import AttemptState, Role, RunState, SideEffects, StepState

RUN_ENDED = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT)
STEP_ENDED = (StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED, StepState.TIMED_OUT)
ATTEMPT_ENDED = (
    AttemptState.SUCCEEDED,
    AttemptState.FAILED,
    AttemptState.CANCELLED,
    AttemptState.TIMED_OUT,
    AttemptState.LOST,
)

CLAIMABLE = "state = 'READY' AND NOT held"
DELAYED = f"{CLAIMABLE} AND not_before > 0"
OFFERED = "state = 'OFFERED'"
"""Of the partial indexes: a query uses one only if it says the very same."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(referred_table_name)s_fk",
        "ck": "%(table_name)s_%(constraint_name)s",
    }
)


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _big(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _values(states: Iterable[StrEnum]) -> str:
    return ", ".join(f"'{state.value}'" for state in states)


def _one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({_values(states)})", name=column)


def _ended(states: Iterable[StrEnum]) -> CheckConstraint:
    return CheckConstraint(f"(end_time IS NOT NULL) = (state IN ({_values(states)}))", name="ended")


def _of_run() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE")


def _partial(name: str, columns: Iterable[ColumnElement[Any]], where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


users = Table(
    "users",
    metadata,
    _text("id"),
    _text("email"),
    _text("name"),
    _text("password_hash"),
    _text("role"),
    _count("token_version"),
    _big("create_time"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("email"),
    _one_of("role", Role),
)

workflows = Table(
    "workflows",
    metadata,
    _text("id"),
    _text("owner_id"),
    _text("name"),
    _text("description"),
    _count("current_version"),
    _text("current_version_id"),
    _text("pinned_version_id", null=True),
    _big("create_time"),
    _big("update_time"),
    _big("delete_time", null=True),
    PrimaryKeyConstraint("id"),
)
# list_workflows of a user, and of all
_partial("workflows_by_owner", [workflows.c.owner_id, workflows.c.create_time, workflows.c.id], "delete_time IS NULL")
_partial("workflows_by_time", [workflows.c.create_time, workflows.c.id], "delete_time IS NULL")

workflow_versions = Table(
    "workflow_versions",
    metadata,
    _text("id"),
    _text("workflow_id"),
    _count("number"),
    _text("dag"),
    _text("plugins"),
    _big("create_time"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("workflow_id", "number"),
    ForeignKeyConstraint(["workflow_id"], ["workflows.id"]),
)

plugins = Table(
    "plugins",
    metadata,
    _text("id"),
    _text("name"),
    _text("description"),
    _text("owner_id"),
    _big("create_time"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
)

plugin_versions = Table(
    "plugin_versions",
    metadata,
    _text("id"),
    _text("plugin_id"),
    _text("version"),
    _text("digest"),
    _big("size_bytes"),
    _text("entry_point"),
    _text("side_effects"),
    _count("timeout_ms"),
    _count("memory_limit_mb"),
    _text("config_schema"),
    _text("output_schema"),
    _flag("enabled"),
    _big("create_time"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("plugin_id", "version"),
    ForeignKeyConstraint(["plugin_id"], ["plugins.id"]),
    _one_of("side_effects", SideEffects),
)
# find_by_digest
Index("plugin_versions_by_digest", plugin_versions.c.digest)

queues = Table(
    "queues",
    metadata,
    _text("id"),
    _text("labels"),
    PrimaryKeyConstraint("id"),
)

agents = Table(
    "agents",
    metadata,
    _text("id"),
    _text("name"),
    _text("credential_hash"),
    _big("create_time"),
    _text("session_id", null=True),
    _count("slots"),
    _text("labels"),
    _text("version"),
    _text("hostname"),
    _text("platform"),
    _big("renewals"),
    _big("lease_expire_time"),
    _big("last_seen_time", null=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
    UniqueConstraint("credential_hash"),
)

enrollment_tokens = Table(
    "enrollment_tokens",
    metadata,
    _text("token_hash"),
    _count("uses_left"),
    _big("expire_time"),
    _big("create_time"),
    PrimaryKeyConstraint("token_hash"),
    CheckConstraint("uses_left >= 0", name="uses_left"),
)

# The owner comes first, not the run: the key is what makes two racing requests one run.
requests = Table(
    "requests",
    metadata,
    _text("owner_id"),
    _text("request_id"),
    _text("digest"),
    _text("run_id"),
    _big("create_time"),
    PrimaryKeyConstraint("owner_id", "request_id"),
)

runs = Table(
    "runs",
    metadata,
    _text("id"),
    _text("workflow_id"),
    _text("version_id"),
    _text("owner_id"),
    _text("state"),
    _count("priority"),
    _text("labels"),
    _flag("cancel_requested"),
    _count("open_steps"),
    _count("failed_steps"),
    _big("event_count"),
    _big("create_time"),
    _big("start_time", null=True),
    _big("end_time", null=True),
    _text("error", null=True),
    PrimaryKeyConstraint("id"),
    _one_of("state", RunState),
    _ended(RUN_ENDED),
    CheckConstraint("open_steps >= 0", name="open_steps"),
)
# list_runs of a user, of a workflow, and of all
Index("runs_by_owner", runs.c.owner_id, runs.c.create_time, runs.c.id)
Index("runs_by_workflow", runs.c.workflow_id, runs.c.create_time, runs.c.id)
Index("runs_by_time", runs.c.create_time, runs.c.id)

# Apart from the run, whose row is written with every event, because an input may be large.
run_inputs = Table(
    "run_inputs",
    metadata,
    _text("run_id"),
    _text("input"),
    PrimaryKeyConstraint("run_id"),
    _of_run(),
)

steps = Table(
    "steps",
    metadata,
    _text("run_id"),
    _text("node_id"),
    _count("position"),
    _text("state"),
    _text("queue_id"),
    _count("priority"),
    _count("open_edges"),
    _count("satisfied_edges"),
    _count("attempt"),
    _count("next_attempt"),
    _count("failures"),
    _count("losses"),
    _big("epoch"),
    _flag("held"),
    _big("fair_key"),
    _big("not_before"),
    _text("config", null=True),
    _text("output", null=True),
    _text("error", null=True),
    _text("agent_id", null=True),
    _big("start_time", null=True),
    _big("end_time", null=True),
    PrimaryKeyConstraint("run_id", "node_id"),
    UniqueConstraint("run_id", "position"),
    _of_run(),
    _one_of("state", StepState),
    _ended(STEP_ENDED),
    CheckConstraint("open_edges >= 0", name="open_edges"),
)
# select_claimable: the order of the claims of a queue, then what it must know of each without a look at its row
_partial(
    "steps_claimable",
    [
        steps.c.queue_id,
        steps.c.priority.desc(),
        steps.c.fair_key,
        steps.c.run_id,
        steps.c.position,
        steps.c.not_before,
        steps.c.node_id,
    ],
    CLAIMABLE,
)
# due_after
_partial("steps_due", [steps.c.not_before, steps.c.queue_id], DELAYED)

# The key of an attempt names its run, so that one within the run is one in the database.
attempts = Table(
    "attempts",
    metadata,
    _text("run_id"),
    _text("node_id"),
    _count("number"),
    _text("execution_key"),
    _text("state"),
    _big("epoch"),
    _text("agent_id"),
    _text("session_id"),
    _text("token_hash"),
    _big("create_time"),
    _big("offer_expire_time"),
    _big("start_time", null=True),
    _big("end_time", null=True),
    _text("error", null=True),
    _text("usage"),
    _text("report_digest", null=True),
    PrimaryKeyConstraint("run_id", "node_id", "number"),
    UniqueConstraint("run_id", "execution_key"),
    ForeignKeyConstraint(["run_id", "node_id"], ["steps.run_id", "steps.node_id"], ondelete="CASCADE"),
    _one_of("state", AttemptState),
    _ended(ATTEMPT_ENDED),
)
# open_leases, leases_of_other_sessions, lease_clocks, list_agents
_partial("attempts_open", [attempts.c.agent_id], "end_time IS NULL")
# expired_offers
_partial("attempts_offered", [attempts.c.offer_expire_time], OFFERED)

events = Table(
    "events",
    metadata,
    _text("run_id"),
    _big("sequence"),
    _big("time"),
    _text("type"),
    _text("node_id"),
    _count("attempt"),
    _text("details"),
    PrimaryKeyConstraint("run_id", "sequence"),
    _of_run(),
    sqlite_with_rowid=False,
)

# How many chunks a run has: its row is the lock under which they are numbered.
run_logs = Table(
    "run_logs",
    metadata,
    _text("run_id"),
    _big("chunks"),
    PrimaryKeyConstraint("run_id"),
    _of_run(),
)

attempt_logs = Table(
    "attempt_logs",
    metadata,
    _text("run_id"),
    _text("node_id"),
    _count("attempt"),
    _big("size"),
    _flag("final"),
    PrimaryKeyConstraint("run_id", "node_id", "attempt"),
    _of_run(),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    _text("run_id"),
    _big("arrival"),
    _text("node_id"),
    _count("attempt"),
    _big("start"),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "arrival"),
    _of_run(),
)
# read_chunks of one node
Index("log_chunks_by_node", log_chunks.c.run_id, log_chunks.c.node_id, log_chunks.c.arrival)
