"""The large steps that are passed over for want of room, and the agents that save up for them.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds a table that the release before does not look at."""
    op.create_table(
        "savings",
        sa.Column("queue_id", _TEXT, nullable=False),
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("node_id", _TEXT, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("saver", _TEXT),
        sa.Column("ask_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("queue_id", name="savings_pk"),
    )


def downgrade() -> None:
    """Drops it."""
    op.drop_table("savings")
