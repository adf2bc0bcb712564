"""Deadlines, limits, retries of runs, large outputs, requirements of queues, and mapped steps.

Revision ID: 0002
Revises: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CLAIMABLE = "state = 'READY' AND NOT held"
_INDEXES: dict[str, tuple[str, list[Any], str]] = {
    "runs_timed": ("runs", ["deadline"], "end_time IS NULL AND deadline IS NOT NULL"),
    "runs_unadmitted": (
        "runs",
        ["concurrency_group", sa.text("priority DESC"), "create_time", "id"],
        "end_time IS NULL AND NOT admitted",
    ),
    "runs_ended": ("runs", ["end_time"], "end_time IS NOT NULL"),
    "steps_queue_timed": ("steps", ["queue_deadline"], f"{_CLAIMABLE} AND queue_deadline > 0"),
    "steps_with_blob": ("steps", ["output_digest"], "output_digest IS NOT NULL"),
}
_STEPS_INDEXES: dict[str, tuple[str, list[Any], str]] = {
    "steps_claimable": (
        "steps",
        ["queue_id", sa.text("priority DESC"), "fair_key", "run_id", "position", "not_before", "node_id"],
        _CLAIMABLE,
    ),
    "steps_due": ("steps", ["not_before", "queue_id"], f"{_CLAIMABLE} AND not_before > 0"),
}


def upgrade() -> None:
    """Adds what the release before does not look at; of what it does, only a constraint is relaxed."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table, columns in _columns().items():
        if not (on_sqlite and table == "steps"):
            for column in columns:
                op.add_column(table, column)
    if on_sqlite:
        _rebuild_steps(_step_columns(), ["run_id", "position", "map_index"])
    else:
        op.drop_constraint("steps_run_id_position_key", "steps")
        op.create_unique_constraint("steps_run_id_position_map_index_key", "steps", ["run_id", "position", "map_index"])
    for name, (table, columns, where) in _INDEXES.items():
        _create_index(name, table, columns, where)
    op.create_table(
        "concurrency_slots",
        sa.Column("group_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("group_id", "number", name="concurrency_slots_pk"),
        sa.UniqueConstraint("run_id", name="concurrency_slots_run_id_key"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="concurrency_slots_runs_fk", ondelete="CASCADE"),
    )
    op.create_table(
        "released_blobs",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("release_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="released_blobs_pk"),
    )


def downgrade() -> None:
    """Drops it again; fails if steps were mapped meanwhile."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    op.drop_table("released_blobs")
    op.drop_table("concurrency_slots")
    for name, (table, _, _) in _INDEXES.items():
        op.drop_index(name, table)
    if on_sqlite:
        _rebuild_steps([], ["run_id", "position"])
    else:
        op.drop_constraint("steps_run_id_position_map_index_key", "steps")
        op.create_unique_constraint("steps_run_id_position_key", "steps", ["run_id", "position"])
    for table, columns in _columns().items():
        if not (on_sqlite and table == "steps"):
            for column in columns:
                op.drop_column(table, column.name)


def _columns() -> dict[str, list[sa.Column[Any]]]:
    return {
        "queues": [
            sa.Column("sandbox_level", sa.Integer, nullable=False, server_default="0"),
            sa.Column("plugin", sa.Text, nullable=True),
        ],
        "agents": [
            sa.Column("drained", sa.Boolean, nullable=False, server_default=sa.false()),
            sa.Column("sandbox_level", sa.Integer, nullable=False, server_default="0"),
            sa.Column("plugins", sa.Text, nullable=False, server_default="[]"),
        ],
        "runs": [
            sa.Column("output", sa.Text, nullable=True),
            sa.Column("retries", sa.Integer, nullable=False, server_default="0"),
            sa.Column("deadline", sa.BigInteger, nullable=True),
            sa.Column("deadline_reached", sa.Boolean, nullable=False, server_default=sa.false()),
            sa.Column("concurrency_group", sa.Text, nullable=True),
            sa.Column("concurrency_limit", sa.Integer, nullable=False, server_default="0"),
            sa.Column("admitted", sa.Boolean, nullable=False, server_default=sa.true()),
            sa.Column("parent_run_id", sa.Text, nullable=True),
            sa.Column("parent_node_id", sa.Text, nullable=True),
        ],
        "steps": _step_columns(),
    }


def _step_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("queue_deadline", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("output_digest", sa.Text, nullable=True),
        sa.Column("attempt_base", sa.Integer, nullable=False, server_default="0"),
        sa.Column("map_index", sa.Integer, nullable=False, server_default="-1"),
        sa.Column("open_children", sa.Integer, nullable=False, server_default="0"),
    ]


def _create_index(name: str, table: str, columns: list[Any], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _rebuild_steps(added: list[sa.Column[Any]], position_key: list[str]) -> None:
    """Replaces the table by one with other constraints, which SQLite cannot change in place."""
    for name in _STEPS_INDEXES:
        op.drop_index(name, "steps")
    kept = [column.name for column in _first_step_columns()]
    op.create_table(
        "new_steps",
        *_first_step_columns(),
        *added,
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
        sa.UniqueConstraint(*position_key, name=f"steps_{'_'.join(position_key)}_key"),
    )
    names = ", ".join(kept)
    op.execute(f"INSERT INTO new_steps ({names}) SELECT {names} FROM steps")  # noqa: S608 - our own names
    op.drop_table("steps")
    op.rename_table("new_steps", "steps")
    for name, (table, columns, where) in _STEPS_INDEXES.items():
        _create_index(name, table, columns, where)


def _first_step_columns() -> list[sa.Column[Any]]:
    texts = {"run_id": False, "node_id": False, "state": False, "queue_id": False}
    optional = {"config", "output", "error", "agent_id"}
    large = {"epoch", "fair_key", "not_before", "start_time", "end_time"}
    order = (
        *("run_id", "node_id", "position", "state", "queue_id", "priority", "open_edges", "satisfied_edges"),
        *("attempt", "next_attempt", "failures", "losses", "epoch", "held", "fair_key", "not_before"),
        *("config", "output", "error", "agent_id", "start_time", "end_time"),
    )

    def kind(name: str) -> Any:
        if name in texts or name in optional:
            return sa.Text
        if name == "held":
            return sa.Boolean
        return sa.BigInteger if name in large else sa.Integer

    return [sa.Column(name, kind(name), nullable=name in optional or name.endswith("_time")) for name in order]
