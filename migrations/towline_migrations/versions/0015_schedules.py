"""Schedules, what became of their times, and which run was started for which of them.

Revision ID: 0015
Revises: 0014
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_INDEXES = {
    "schedules_by_owner": ("schedules", ["owner_id", "create_time", "id"], "delete_time IS NULL"),
    "schedules_by_time": ("schedules", ["create_time", "id"], "delete_time IS NULL"),
    "schedules_due": ("schedules", ["due_time", "owner_id", "id"], "due_time IS NOT NULL"),
    "schedules_buffered": ("schedules", ["buffered_time", "id"], "buffered_time IS NOT NULL"),
    "schedules_deleted": ("schedules", ["id"], "delete_time IS NOT NULL"),
    "runs_of_schedule_open": ("runs", ["schedule_id"], "schedule_id IS NOT NULL AND end_time IS NULL"),
}


def upgrade() -> None:
    """Adds the tables, and columns that the release before does not look at."""
    op.add_column("runs", sa.Column("schedule_id", _TEXT, nullable=True))
    op.add_column("runs", sa.Column("scheduled_time", sa.BigInteger, nullable=True))
    op.create_table(
        "schedules",
        *_schedule_columns(),
        sa.PrimaryKeyConstraint("id", name="schedules_pk"),
        sa.CheckConstraint("overlap IN ('SKIP', 'BUFFER_ONE', 'ALLOW_ALL', 'CANCEL_OTHER')", name="schedules_overlap"),
        sa.CheckConstraint("(cron IS NULL) <> (interval IS NULL)", name="schedules_cron_or_interval"),
        sa.CheckConstraint("(due_time IS NULL) = (next_time IS NULL)", name="schedules_due_with_next"),
        sa.CheckConstraint(
            "NOT paused OR (next_time IS NULL AND buffered_time IS NULL)", name="schedules_paused_rests"
        ),
    )
    op.create_table(
        "schedule_firings",
        sa.Column("schedule_id", _TEXT, nullable=False),
        sa.Column("scheduled_time", sa.BigInteger, nullable=False),
        sa.Column("outcome", _TEXT, nullable=False),
        sa.Column("origin", _TEXT, nullable=False),
        sa.Column("started_run_id", _TEXT, nullable=True),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", "scheduled_time", name="schedule_firings_pk"),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name="schedule_firings_schedules_fk", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "outcome IN ('STARTED', 'BUFFERED', 'SKIPPED', 'MISSED', 'FAILED')", name="schedule_firings_outcome"
        ),
        sa.CheckConstraint("origin IN ('TIMETABLE', 'BACKFILL', 'TRIGGER')", name="schedule_firings_origin"),
        sa.CheckConstraint(
            "(outcome = 'STARTED') = (started_run_id IS NOT NULL)", name="schedule_firings_started_has_run"
        ),
    )
    op.create_index("schedule_firings_by_time", "schedule_firings", ["create_time"])
    for name, (table, columns, where) in _INDEXES.items():
        op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    """Drops all of it."""
    op.drop_index("runs_of_schedule_open", "runs")
    op.drop_table("schedule_firings")
    op.drop_table("schedules")
    op.drop_column("runs", "scheduled_time")
    op.drop_column("runs", "schedule_id")


def _schedule_columns() -> list[sa.Column[Any]]:
    order = (
        *("id", "owner_id", "name", "workflow_id", "version_id", "cron", "interval", "time_zone", "input"),
        *("priority", "labels", "overlap", "catch_up_window", "catch_up_limit", "jitter", "start_time", "end_time"),
        *("paused", "note", "revision", "create_time", "update_time", "next_time", "due_time", "buffered_time"),
        *("failures", "error_code", "error_message", "delete_time"),
    )
    optional = {"version_id", "cron", "interval", "start_time", "end_time", "next_time", "due_time", "buffered_time"}
    large = {name for name in order if name.endswith("_time")} | {"interval", "catch_up_window", "jitter"}
    small = {"priority", "catch_up_limit", "revision", "failures"}

    def kind(name: str) -> Any:
        if name == "paused":
            return sa.Boolean()
        if name in large:
            return sa.BigInteger()
        return sa.Integer() if name in small else _TEXT

    return [sa.Column(name, kind(name), nullable=name in optional or name == "delete_time") for name in order]
