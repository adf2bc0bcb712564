"""Which version of the protocol an agent speaks, what it lacks, and which version a step needs.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds three columns, with the values of agents and queues from before they were told apart."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    for table in ("agents", "queues"):
        op.add_column(table, sa.Column("protocol_version", sa.Integer, nullable=False, server_default="1"))
    op.add_column("agents", sa.Column("lacking", text, nullable=False, server_default="[]"))


def downgrade() -> None:
    """Drops them."""
    op.drop_column("agents", "lacking")
    for table in ("queues", "agents"):
        op.drop_column(table, "protocol_version")
