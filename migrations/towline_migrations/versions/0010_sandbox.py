"""What agents prove of their sandbox, what steps ask of their network, and the sandbox that an attempt really had.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns, with the values of agents and steps from before."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.add_column("queues", sa.Column("network", text, nullable=False, server_default="FULL"))
    op.add_column("agents", sa.Column("sandbox", text, nullable=False, server_default="{}"))
    op.add_column("agents", sa.Column("network_isolation", text, nullable=False, server_default="none"))
    op.add_column("agents", sa.Column("sandbox_cap", sa.Integer, nullable=True))
    op.add_column("attempts", sa.Column("sandbox_level", sa.Integer, nullable=True))


def downgrade() -> None:
    """Drops them."""
    for table, names in _ADDED.items():
        for name in names:
            op.drop_column(table, name)


_ADDED = {
    "attempts": ["sandbox_level"],
    "agents": ["sandbox_cap", "network_isolation", "sandbox"],
    "queues": ["network"],
}
