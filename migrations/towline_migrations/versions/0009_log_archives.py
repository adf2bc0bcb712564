"""Where the log of an attempt lies once it is an object in the blob store.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_NUMBERS = (
    *("archived_size", "archived_chunks", "object_size", "index_size"),
    *("first_arrival", "last_arrival", "claimed_until"),
)
_DIGESTS = ("content_digest", "object_digest")
_INDEXES = {
    "attempt_logs_unarchived": (["claimed_until"], "archived_size < size"),
    "attempt_logs_archived": (["run_id", "last_arrival"], "object_digest IS NOT NULL"),
    "attempt_logs_by_object": (["object_digest"], "object_digest IS NOT NULL"),
}


def upgrade() -> None:
    """Adds the columns, with the values of a log that is not archived, and their indexes."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    for name in _NUMBERS:
        op.add_column("attempt_logs", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    for name in _DIGESTS:
        op.add_column("attempt_logs", sa.Column(name, text, nullable=True))
    for name, (columns, where) in _INDEXES.items():
        condition = sa.text(where)
        op.create_index(name, "attempt_logs", columns, sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    """Drops them."""
    for name in _INDEXES:
        op.drop_index(name, "attempt_logs")
    for name in (*_DIGESTS, *reversed(_NUMBERS)):
        op.drop_column("attempt_logs", name)
