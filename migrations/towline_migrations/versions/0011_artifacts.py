"""Files that attempts made, and how many of them each step has.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds the table, and a column that the release before does not look at."""
    op.add_column("steps", sa.Column("artifact_count", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "artifacts",
        sa.Column("run_id", _TEXT, nullable=False),
        sa.Column("node_id", _TEXT, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("content_type", _TEXT, nullable=False),
        sa.Column("bound", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "node_id", "attempt", "name", name="artifacts_pk"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="artifacts_runs_fk", ondelete="CASCADE"),
        sa.CheckConstraint("size_bytes >= 0", name="artifacts_size_bytes"),
    )
    op.create_index("artifacts_by_digest", "artifacts", ["digest"])
    op.create_index(
        "artifacts_unbound",
        "artifacts",
        ["create_time"],
        sqlite_where=sa.text("NOT bound"),
        postgresql_where=sa.text("NOT bound"),
    )


def downgrade() -> None:
    """Drops both."""
    op.drop_table("artifacts")
    op.drop_column("steps", "artifact_count")
