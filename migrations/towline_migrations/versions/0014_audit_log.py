"""The audit log: every call that changes something.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds the table."""
    op.create_table(
        "audit_events",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("user_id", _TEXT, nullable=False),
        sa.Column("credential", _TEXT, nullable=False),
        sa.Column("credential_id", _TEXT, nullable=False),
        sa.Column("method", _TEXT, nullable=False),
        sa.Column("target", _TEXT, nullable=False),
        sa.Column("address", _TEXT, nullable=False),
        sa.Column("request_id", _TEXT, nullable=False),
        sa.Column("code", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="audit_events_pk"),
    )
    op.create_index("audit_events_by_time", "audit_events", ["time", "id"])
    op.create_index("audit_events_by_user", "audit_events", ["user_id", "time", "id"])
    op.create_index("audit_events_by_method", "audit_events", ["method", "time", "id"])


def downgrade() -> None:
    """Drops it."""
    op.drop_table("audit_events")
