"""Sign-ins with their refresh tokens, tokens that count no more, API keys, and users who are disabled.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Adds three tables, and a column that the release before does not look at."""
    op.add_column("users", sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "sign_ins",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("user_id", _TEXT, nullable=False),
        sa.Column("family_hash", _TEXT, nullable=False),
        sa.Column("refresh_hash", _TEXT, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("use_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="sign_ins_pk"),
        sa.UniqueConstraint("family_hash", name="sign_ins_family_hash_key"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="sign_ins_users_fk", ondelete="CASCADE"),
    )
    op.create_index("sign_ins_by_user", "sign_ins", ["user_id", "use_time"])
    op.create_table(
        "revoked_tokens",
        sa.Column("token_id", _TEXT, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("token_id", name="revoked_tokens_pk"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("user_id", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("prefix", _TEXT, nullable=False),
        sa.Column("key_hash", _TEXT, nullable=False),
        sa.Column("scopes", _TEXT, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger),
        sa.Column("use_time", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="api_keys_pk"),
        sa.UniqueConstraint("key_hash", name="api_keys_key_hash_key"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="api_keys_users_fk", ondelete="CASCADE"),
    )
    op.create_index("api_keys_by_user", "api_keys", ["user_id", "id"])


def downgrade() -> None:
    """Drops them."""
    op.drop_table("api_keys")
    op.drop_table("revoked_tokens")
    op.drop_table("sign_ins")
    op.drop_column("users", "disabled")
