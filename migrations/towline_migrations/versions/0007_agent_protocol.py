"""Frozen runs, weights and memory of steps, agents that are disabled, unschedulable or change their credential.

Revision ID: 0007
Revises: 0006
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NEXT_CREDENTIAL = "agents_by_next_credential"


def upgrade() -> None:
    """Adds what the release before does not look at."""
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column)
    where = sa.text("next_credential_hash IS NOT NULL")
    op.create_index(
        _NEXT_CREDENTIAL, "agents", ["next_credential_hash"], unique=True, sqlite_where=where, postgresql_where=where
    )


def downgrade() -> None:
    """Forgets it."""
    op.drop_index(_NEXT_CREDENTIAL, "agents")
    for table, columns in _columns().items():
        for column in columns:
            op.drop_column(table, column.name)


def _columns() -> dict[str, list[sa.Column[Any]]]:
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    return {
        "runs": [sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false())],
        "queues": [
            sa.Column("weight", sa.Integer, nullable=False, server_default="1"),
            sa.Column("memory_mb", sa.Integer, nullable=False, server_default="0"),
        ],
        "attempts": [sa.Column("weight", sa.Integer, nullable=False, server_default="1")],
        "agents": [
            sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
            sa.Column("unschedulable", text, nullable=True),
            sa.Column("memory_bytes", sa.BigInteger, nullable=False, server_default="0"),
            sa.Column("rotation_time", sa.BigInteger, nullable=False, server_default="0"),
            sa.Column("next_credential_hash", text, nullable=True),
        ],
    }
