"""Indexes for the orders in which runs and workflows are listed, and for runs that are open.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEXES = {
    "runs_open_by_owner": ("runs", ["owner_id", "create_time", "id"], "end_time IS NULL"),
    "runs_open_by_time": ("runs", ["create_time", "id"], "end_time IS NULL"),
    "runs_ended_by_owner": ("runs", ["owner_id", "end_time", "id"], "end_time IS NOT NULL"),
    "runs_ended_by_time": ("runs", ["end_time", "id"], "end_time IS NOT NULL"),
    "workflows_by_owner_name": ("workflows", ["owner_id", "name", "id"], "delete_time IS NULL"),
    "workflows_by_name": ("workflows", ["name", "id"], "delete_time IS NULL"),
    "workflows_by_owner_change": ("workflows", ["owner_id", "update_time", "id"], "delete_time IS NULL"),
    "workflows_by_change": ("workflows", ["update_time", "id"], "delete_time IS NULL"),
}
_REPLACED = {"runs_ended": ("runs", ["end_time"], "end_time IS NOT NULL")}
"""By `runs_ended_by_time`, which begins with the same column."""


def upgrade() -> None:
    """Adds the indexes, and drops the one that another makes superfluous."""
    _create(_INDEXES)
    _drop(_REPLACED)


def downgrade() -> None:
    """Puts the old one back and drops the new ones."""
    _create(_REPLACED)
    _drop(_INDEXES)


def _create(indexes: dict[str, tuple[str, list[str], str]]) -> None:
    for name, (table, columns, where) in indexes.items():
        condition = sa.text(where)
        op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)


def _drop(indexes: dict[str, tuple[str, list[str], str]]) -> None:
    for name, (table, _, _) in indexes.items():
        op.drop_index(name, table)
