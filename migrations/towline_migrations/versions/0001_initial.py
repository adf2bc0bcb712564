"""The first schema.

Revision ID: 0001
Revises: nothing
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates every table."""
    for create in _TABLES.values():
        create()


def downgrade() -> None:
    """Drops every table."""
    for name in reversed(_TABLES):
        op.drop_table(name)


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("token_version", sa.Integer, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="users_pk"),
        sa.CheckConstraint("role IN ('USER', 'ADMIN')", name="users_role"),
        sa.UniqueConstraint("email", name="users_email_key"),
    )


def _create_workflows() -> None:
    op.create_table(
        "workflows",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("current_version", sa.Integer, nullable=False),
        sa.Column("current_version_id", sa.Text, nullable=False),
        sa.Column("pinned_version_id", sa.Text, nullable=True),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("delete_time", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="workflows_pk"),
    )
    _create_partial_index("workflows_by_owner", "workflows", ["owner_id", "create_time", "id"], "delete_time IS NULL")
    _create_partial_index("workflows_by_time", "workflows", ["create_time", "id"], "delete_time IS NULL")


def _create_workflow_versions() -> None:
    op.create_table(
        "workflow_versions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("dag", sa.Text, nullable=False),
        sa.Column("plugins", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="workflow_versions_pk"),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name="workflow_versions_workflows_fk"),
        sa.UniqueConstraint("workflow_id", "number", name="workflow_versions_workflow_id_number_key"),
    )


def _create_plugins() -> None:
    op.create_table(
        "plugins",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="plugins_pk"),
        sa.UniqueConstraint("name", name="plugins_name_key"),
    )


def _create_plugin_versions() -> None:
    op.create_table(
        "plugin_versions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("plugin_id", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("entry_point", sa.Text, nullable=False),
        sa.Column("side_effects", sa.Text, nullable=False),
        sa.Column("timeout_ms", sa.Integer, nullable=False),
        sa.Column("memory_limit_mb", sa.Integer, nullable=False),
        sa.Column("config_schema", sa.Text, nullable=False),
        sa.Column("output_schema", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="plugin_versions_pk"),
        sa.CheckConstraint("side_effects IN ('NONE', 'IDEMPOTENT', 'UNSAFE')", name="plugin_versions_side_effects"),
        sa.ForeignKeyConstraint(["plugin_id"], ["plugins.id"], name="plugin_versions_plugins_fk"),
        sa.UniqueConstraint("plugin_id", "version", name="plugin_versions_plugin_id_version_key"),
    )
    op.create_index("plugin_versions_by_digest", "plugin_versions", ["digest"])


def _create_queues() -> None:
    op.create_table(
        "queues",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="queues_pk"),
    )


def _create_agents() -> None:
    op.create_table(
        "agents",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("credential_hash", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("session_id", sa.Text, nullable=True),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("hostname", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("renewals", sa.BigInteger, nullable=False),
        sa.Column("lease_expire_time", sa.BigInteger, nullable=False),
        sa.Column("last_seen_time", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="agents_pk"),
        sa.UniqueConstraint("credential_hash", name="agents_credential_hash_key"),
        sa.UniqueConstraint("name", name="agents_name_key"),
    )


def _create_enrollment_tokens() -> None:
    op.create_table(
        "enrollment_tokens",
        sa.Column("token_hash", sa.Text, nullable=False),
        sa.Column("uses_left", sa.Integer, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="enrollment_tokens_pk"),
        sa.CheckConstraint("uses_left >= 0", name="enrollment_tokens_uses_left"),
    )


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("owner_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "request_id", name="requests_pk"),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("version_id", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("open_steps", sa.Integer, nullable=False),
        sa.Column("failed_steps", sa.Integer, nullable=False),
        sa.Column("event_count", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=True),
        sa.Column("end_time", sa.BigInteger, nullable=True),
        sa.Column("error", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("id", name="runs_pk"),
        sa.CheckConstraint(
            "(end_time IS NOT NULL) = (state IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT'))", name="runs_ended"
        ),
        sa.CheckConstraint("open_steps >= 0", name="runs_open_steps"),
        sa.CheckConstraint(
            "state IN ('PENDING', 'RUNNING', 'PAUSED', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT')",
            name="runs_state",
        ),
    )
    op.create_index("runs_by_owner", "runs", ["owner_id", "create_time", "id"])
    op.create_index("runs_by_time", "runs", ["create_time", "id"])
    op.create_index("runs_by_workflow", "runs", ["workflow_id", "create_time", "id"])


def _create_run_inputs() -> None:
    op.create_table(
        "run_inputs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="run_inputs_pk"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="run_inputs_runs_fk", ondelete="CASCADE"),
    )


def _create_steps() -> None:
    op.create_table(
        "steps",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("queue_id", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("open_edges", sa.Integer, nullable=False),
        sa.Column("satisfied_edges", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("next_attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("fair_key", sa.BigInteger, nullable=False),
        sa.Column("not_before", sa.BigInteger, nullable=False),
        sa.Column("config", sa.Text, nullable=True),
        sa.Column("output", sa.Text, nullable=True),
        sa.Column("error", sa.Text, nullable=True),
        sa.Column("agent_id", sa.Text, nullable=True),
        sa.Column("start_time", sa.BigInteger, nullable=True),
        sa.Column("end_time", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("run_id", "node_id", name="steps_pk"),
        sa.CheckConstraint(
            "(end_time IS NOT NULL) = (state IN ('SUCCEEDED', 'FAILED', 'SKIPPED', 'CANCELLED', 'TIMED_OUT'))",
            name="steps_ended",
        ),
        sa.CheckConstraint("open_edges >= 0", name="steps_open_edges"),
        sa.CheckConstraint(
            "state IN ('WAITING', 'READY', 'LEASED', 'PARKED', "
            "'SUCCEEDED', 'FAILED', 'SKIPPED', 'CANCELLED', 'TIMED_OUT')",
            name="steps_state",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="steps_runs_fk", ondelete="CASCADE"),
        sa.UniqueConstraint("run_id", "position", name="steps_run_id_position_key"),
    )
    _create_partial_index(
        "steps_claimable",
        "steps",
        ["queue_id", sa.text("priority DESC"), "fair_key", "run_id", "position", "not_before", "node_id"],
        "state = 'READY' AND NOT held",
    )
    _create_partial_index(
        "steps_due", "steps", ["not_before", "queue_id"], "state = 'READY' AND NOT held AND not_before > 0"
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("execution_key", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("token_hash", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("offer_expire_time", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=True),
        sa.Column("end_time", sa.BigInteger, nullable=True),
        sa.Column("error", sa.Text, nullable=True),
        sa.Column("usage", sa.Text, nullable=False),
        sa.Column("report_digest", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("run_id", "node_id", "number", name="attempts_pk"),
        sa.CheckConstraint(
            "(end_time IS NOT NULL) = (state IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'LOST'))",
            name="attempts_ended",
        ),
        sa.CheckConstraint(
            "state IN ('OFFERED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'LOST')",
            name="attempts_state",
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "node_id"], ["steps.run_id", "steps.node_id"], name="attempts_steps_fk", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("run_id", "execution_key", name="attempts_run_id_execution_key_key"),
    )
    _create_partial_index("attempts_offered", "attempts", ["offer_expire_time"], "state = 'OFFERED'")
    _create_partial_index("attempts_open", "attempts", ["agent_id"], "end_time IS NULL")


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "sequence", name="events_pk"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="events_runs_fk", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )


def _create_run_logs() -> None:
    op.create_table(
        "run_logs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("chunks", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="run_logs_pk"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="run_logs_runs_fk", ondelete="CASCADE"),
    )


def _create_attempt_logs() -> None:
    op.create_table(
        "attempt_logs",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("final", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "node_id", "attempt", name="attempt_logs_pk"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="attempt_logs_runs_fk", ondelete="CASCADE"),
    )


def _create_log_chunks() -> None:
    op.create_table(
        "log_chunks",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("arrival", sa.BigInteger, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "arrival", name="log_chunks_pk"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="log_chunks_runs_fk", ondelete="CASCADE"),
    )
    op.create_index("log_chunks_by_node", "log_chunks", ["run_id", "node_id", "arrival"])


def _create_partial_index(name: str, table: str, columns: list[Any], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


_TABLES = {
    "users": _create_users,
    "workflows": _create_workflows,
    "workflow_versions": _create_workflow_versions,
    "plugins": _create_plugins,
    "plugin_versions": _create_plugin_versions,
    "queues": _create_queues,
    "agents": _create_agents,
    "enrollment_tokens": _create_enrollment_tokens,
    "requests": _create_requests,
    "runs": _create_runs,
    "run_inputs": _create_run_inputs,
    "steps": _create_steps,
    "attempts": _create_attempts,
    "events": _create_events,
    "run_logs": _create_run_logs,
    "attempt_logs": _create_attempt_logs,
    "log_chunks": _create_log_chunks,
}
