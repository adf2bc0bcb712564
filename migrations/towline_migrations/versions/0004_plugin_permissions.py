"""What a version of a plugin may have and needs: permissions, its weakest sandbox, limits.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds three columns, with the values of a version that says nothing of them."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.add_column("plugin_versions", sa.Column("permissions", text, nullable=False, server_default="{}"))
    op.add_column("plugin_versions", sa.Column("min_sandbox", sa.Integer, nullable=False, server_default="0"))
    op.add_column("plugin_versions", sa.Column("limits", text, nullable=False, server_default="{}"))


def downgrade() -> None:
    """Drops them."""
    for name in ("limits", "min_sandbox", "permissions"):
        op.drop_column("plugin_versions", name)
