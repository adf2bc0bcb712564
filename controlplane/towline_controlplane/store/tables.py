"""The tables, portable between databases. The migrations create them; a test keeps the two equal.

Times are µs in BIGINT, free JSON and enums are TEXT. What a run owns leads its primary key with `run_id` and refers to
nothing but the run, so that it can be distributed and dropped by run. An index serves a query that is named beside it.
"""

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    false,
    true,
)

from towline_controlplane.model import AttemptState, Role, RunState, StepState
from towline_controlplane.store import (
    agent_tables,
    columns,
    identity_tables,
    log_tables,
    plugin_tables,
    schedule_tables,
    secret_tables,
)
from towline_controlplane.store.columns import big, count, ended, flag, metadata, of_run, one_of, partial, text_column

plugins, plugin_versions = plugin_tables.plugins, plugin_tables.plugin_versions
sign_ins, revoked_tokens = identity_tables.sign_ins, identity_tables.revoked_tokens
api_keys, audit_events = identity_tables.api_keys, identity_tables.audit_events
secrets, secret_grants = secret_tables.secrets, secret_tables.secret_grants
schedules, schedule_firings = schedule_tables.schedules, schedule_tables.schedule_firings
run_logs, attempt_logs, log_chunks = log_tables.run_logs, log_tables.attempt_logs, log_tables.log_chunks

CLAIMABLE = "state = 'READY' AND NOT held"
DELAYED = f"{CLAIMABLE} AND not_before > 0"
QUEUE_TIMED = f"{CLAIMABLE} AND queue_deadline > 0"
OFFERED = "state = 'OFFERED'"
UNADMITTED = "end_time IS NULL AND NOT admitted"
RUN_OPEN = "end_time IS NULL"
RUN_TIMED = "end_time IS NULL AND deadline IS NOT NULL"
OPEN_OF_SCHEDULE = "schedule_id IS NOT NULL AND end_time IS NULL"
"""Of the partial indexes: a query uses one only if it says the very same."""

agents = agent_tables.agents
enrollment_tokens = agent_tables.enrollment_tokens
queues, savings = agent_tables.queues, agent_tables.savings

users = Table(
    "users",
    metadata,
    text_column("id"),
    text_column("email"),
    text_column("name"),
    text_column("password_hash"),
    text_column("role"),
    count("token_version"),
    big("create_time"),
    flag("disabled", default=false()),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("email"),
    one_of("role", Role),
)

workflows = Table(
    "workflows",
    metadata,
    text_column("id"),
    text_column("owner_id"),
    text_column("name"),
    text_column("description"),
    count("current_version"),
    text_column("current_version_id"),
    text_column("pinned_version_id", null=True),
    big("create_time"),
    big("update_time"),
    big("delete_time", null=True),
    PrimaryKeyConstraint("id"),
)
# list_workflows of a user, and of all
partial("workflows_by_owner", [workflows.c.owner_id, workflows.c.create_time, workflows.c.id], "delete_time IS NULL")
partial("workflows_by_time", [workflows.c.create_time, workflows.c.id], "delete_time IS NULL")
partial("workflows_by_owner_name", [workflows.c.owner_id, workflows.c.name, workflows.c.id], "delete_time IS NULL")
partial("workflows_by_name", [workflows.c.name, workflows.c.id], "delete_time IS NULL")
partial(
    "workflows_by_owner_change", [workflows.c.owner_id, workflows.c.update_time, workflows.c.id], "delete_time IS NULL"
)
partial("workflows_by_change", [workflows.c.update_time, workflows.c.id], "delete_time IS NULL")

workflow_versions = Table(
    "workflow_versions",
    metadata,
    text_column("id"),
    text_column("workflow_id"),
    count("number"),
    text_column("dag"),
    text_column("plugins"),
    big("create_time"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("workflow_id", "number"),
    ForeignKeyConstraint(["workflow_id"], ["workflows.id"]),
)


# The owner comes first, not the run: the key is what makes two racing requests one run.
requests = Table(
    "requests",
    metadata,
    text_column("owner_id"),
    text_column("request_id"),
    text_column("digest"),
    text_column("run_id"),
    big("create_time"),
    PrimaryKeyConstraint("owner_id", "request_id"),
)

runs = Table(
    "runs",
    metadata,
    text_column("id"),
    text_column("workflow_id"),
    text_column("version_id"),
    text_column("owner_id"),
    text_column("state"),
    count("priority"),
    text_column("labels"),
    flag("cancel_requested"),
    count("open_steps"),
    count("failed_steps"),
    big("event_count"),
    big("create_time"),
    big("start_time", null=True),
    big("end_time", null=True),
    text_column("error", null=True),
    text_column("output", null=True),
    count("retries", default="0"),
    big("deadline", null=True),
    flag("deadline_reached", default=false()),
    text_column("concurrency_group", null=True),
    count("concurrency_limit", default="0"),
    flag("admitted", default=true()),
    # Of a run that a step of another run started.
    text_column("parent_run_id", null=True),
    text_column("parent_node_id", null=True),
    flag("frozen", default=false()),
    text_column("schedule_id", null=True),
    big("scheduled_time", null=True),
    PrimaryKeyConstraint("id"),
    one_of("state", RunState),
    ended(columns.RUN_ENDED),
    CheckConstraint("open_steps >= 0", name="open_steps"),
)
# list_runs of a user, of a workflow, and of all; then of those that are open, and by their end of those that have ended
Index("runs_by_owner", runs.c.owner_id, runs.c.create_time, runs.c.id)
Index("runs_by_workflow", runs.c.workflow_id, runs.c.create_time, runs.c.id)
Index("runs_by_time", runs.c.create_time, runs.c.id)
partial("runs_open_by_owner", [runs.c.owner_id, runs.c.create_time, runs.c.id], RUN_OPEN)
partial("runs_open_by_time", [runs.c.create_time, runs.c.id], RUN_OPEN)
partial("runs_ended_by_owner", [runs.c.owner_id, runs.c.end_time, runs.c.id], "end_time IS NOT NULL")
# also hide_ended_runs, delete_batch
partial("runs_ended_by_time", [runs.c.end_time, runs.c.id], "end_time IS NOT NULL")

# due_runs
partial("runs_timed", [runs.c.deadline], RUN_TIMED)
# open_runs
partial("runs_of_schedule_open", [runs.c.schedule_id], OPEN_OF_SCHEDULE)
# waiting_runs
partial(
    "runs_unadmitted", [runs.c.concurrency_group, runs.c.priority.desc(), runs.c.create_time, runs.c.id], UNADMITTED
)
# A slot of a group of runs with a limit: its row belongs to the run that holds it. The key is what makes it one run's.
concurrency_slots = Table(
    "concurrency_slots",
    metadata,
    text_column("group_id"),
    count("number"),
    text_column("run_id"),
    big("create_time"),
    PrimaryKeyConstraint("group_id", "number"),
    UniqueConstraint("run_id"),
    of_run(),
)

# Apart from the run, whose row is written with every event.
run_inputs = Table(
    "run_inputs",
    metadata,
    text_column("run_id"),
    text_column("input"),
    PrimaryKeyConstraint("run_id"),
    of_run(),
)

steps = Table(
    "steps",
    metadata,
    text_column("run_id"),
    text_column("node_id"),
    count("position"),
    text_column("state"),
    text_column("queue_id"),
    count("priority"),
    count("open_edges"),
    count("satisfied_edges"),
    count("attempt"),
    count("next_attempt"),
    count("failures"),
    count("losses"),
    big("epoch"),
    flag("held"),
    big("fair_key"),
    big("not_before"),
    text_column("config", null=True),
    text_column("output", null=True),
    text_column("error", null=True),
    text_column("agent_id", null=True),
    big("start_time", null=True),
    big("end_time", null=True),
    big("queue_deadline", default="0"),
    text_column("output_digest", null=True),
    count("attempt_base", default="0"),
    count("map_index", default="-1"),
    # Steps that a mapped step, or one that started a run, waits for.
    count("open_children", default="0"),
    count("memory_limit_mb", default="0"),
    count("artifact_count", default="0"),
    PrimaryKeyConstraint("run_id", "node_id"),
    UniqueConstraint("run_id", "position", "map_index"),
    of_run(),
    one_of("state", StepState),
    ended(columns.STEP_ENDED),
    CheckConstraint("open_edges >= 0", name="open_edges"),
)
# lock_claimable: the order of the claims of a queue, then what it must know of each without a look at its row
partial(
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
partial("steps_due", [steps.c.not_before, steps.c.queue_id], DELAYED)

# queue_timeouts
partial("steps_queue_timed", [steps.c.queue_deadline], QUEUE_TIMED)
# unreferenced_blobs
partial("steps_with_blob", [steps.c.output_digest], "output_digest IS NOT NULL")

# Blobs that a deleted run referred to, until nothing does.
released_blobs = Table(
    "released_blobs",
    metadata,
    text_column("digest"),
    big("release_time"),
    PrimaryKeyConstraint("digest"),
)

# The key of an attempt names its run, so that one within the run is one in the database.
attempts = Table(
    "attempts",
    metadata,
    text_column("run_id"),
    text_column("node_id"),
    count("number"),
    text_column("execution_key"),
    text_column("state"),
    big("epoch"),
    text_column("agent_id"),
    text_column("session_id"),
    text_column("token_hash"),
    big("create_time"),
    big("offer_expire_time"),
    big("start_time", null=True),
    big("end_time", null=True),
    text_column("error", null=True),
    text_column("usage"),
    text_column("report_digest", null=True),
    count("weight", default="1"),
    text_column("evidence", null=True),
    count("memory_limit_mb", default="0"),
    count("sandbox_level", null=True),
    PrimaryKeyConstraint("run_id", "node_id", "number"),
    UniqueConstraint("run_id", "execution_key"),
    ForeignKeyConstraint(["run_id", "node_id"], ["steps.run_id", "steps.node_id"], ondelete="CASCADE"),
    one_of("state", AttemptState),
    ended(columns.ATTEMPT_ENDED),
)
# open_leases, leases_of_other_sessions, lease_clocks, list_agents
partial("attempts_open", [attempts.c.agent_id], "end_time IS NULL")
# expired_offers
partial("attempts_offered", [attempts.c.offer_expire_time], OFFERED)

# Files that attempts made. A row is *bound*, and so visible, once the result that names it is accepted.
artifacts = Table(
    "artifacts",
    metadata,
    text_column("run_id"),
    text_column("node_id"),
    count("attempt"),
    text_column("name"),
    big("epoch"),
    text_column("digest"),
    big("size_bytes"),
    text_column("content_type"),
    flag("bound"),
    big("create_time"),
    PrimaryKeyConstraint("run_id", "node_id", "attempt", "name"),
    of_run(),
    CheckConstraint("size_bytes >= 0", name="size_bytes"),
)
# owner_has, unreferenced blobs
Index("artifacts_by_digest", artifacts.c.digest)
# delete_unbound
partial("artifacts_unbound", [artifacts.c.create_time], "NOT bound")

events = Table(
    "events",
    metadata,
    text_column("run_id"),
    big("sequence"),
    big("time"),
    text_column("type"),
    text_column("node_id"),
    count("attempt"),
    text_column("details"),
    PrimaryKeyConstraint("run_id", "sequence"),
    of_run(),
    sqlite_with_rowid=False,
)
