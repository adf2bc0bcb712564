"""Secrets of users, encrypted, and which plugins they are granted to.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates two tables."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.create_table(
        "secrets",
        sa.Column("id", text, nullable=False),
        sa.Column("owner_id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("key_id", text, nullable=False),
        sa.Column("nonce", sa.LargeBinary, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="secrets_pk"),
        sa.UniqueConstraint("owner_id", "name", name="secrets_owner_id_name_key"),
    )
    op.create_table(
        "secret_grants",
        sa.Column("secret_id", text, nullable=False),
        sa.Column("plugin", text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("secret_id", "plugin", name="secret_grants_pk"),
        sa.ForeignKeyConstraint(["secret_id"], ["secrets.id"], name="secret_grants_secrets_fk", ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Drops them."""
    op.drop_table("secret_grants")
    op.drop_table("secrets")
