"""The tables of secrets and their grants, a part of `tables`."""

from sqlalchemy import Column, ForeignKeyConstraint, LargeBinary, PrimaryKeyConstraint, Table, UniqueConstraint

from towline_controlplane.store.columns import big, count, metadata, text_column

secrets = Table(
    "secrets",
    metadata,
    text_column("id"),
    text_column("owner_id"),
    text_column("name"),
    count("version"),
    text_column("key_id"),
    Column("nonce", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    big("create_time"),
    big("update_time"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("owner_id", "name"),
)

secret_grants = Table(
    "secret_grants",
    metadata,
    text_column("secret_id"),
    text_column("plugin"),
    big("create_time"),
    PrimaryKeyConstraint("secret_id", "plugin"),
    ForeignKeyConstraint(["secret_id"], ["secrets.id"], ondelete="CASCADE"),
)
