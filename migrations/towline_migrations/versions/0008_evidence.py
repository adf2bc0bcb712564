"""How attempts died and what memory they had: the evidence, their limits, the limit that a step was raised to.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds three columns, with the values of attempts of which nothing is known."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.add_column("attempts", sa.Column("evidence", text, nullable=True))
    op.add_column("attempts", sa.Column("memory_limit_mb", sa.Integer, nullable=False, server_default="0"))
    op.add_column("steps", sa.Column("memory_limit_mb", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drops them."""
    op.drop_column("steps", "memory_limit_mb")
    op.drop_column("attempts", "memory_limit_mb")
    op.drop_column("attempts", "evidence")
