"""The tables of sign-ins, revoked tokens, API keys and the audit log, a part of `tables`."""

from sqlalchemy import ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table, UniqueConstraint

from towline_controlplane.store.columns import big, metadata, text_column

sign_ins = Table(
    "sign_ins",
    metadata,
    text_column("id"),
    text_column("user_id"),
    text_column("family_hash"),
    text_column("refresh_hash"),
    big("create_time"),
    big("use_time"),
    big("expire_time"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("family_hash"),
    ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
)
# Serves: the sign-ins of a user, the oldest first.
Index("sign_ins_by_user", sign_ins.c.user_id, sign_ins.c.use_time)

revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    text_column("token_id"),
    big("expire_time"),
    PrimaryKeyConstraint("token_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    text_column("id"),
    text_column("user_id"),
    text_column("name"),
    text_column("prefix"),
    text_column("key_hash"),
    text_column("scopes"),
    big("create_time"),
    big("expire_time", null=True),
    big("use_time", null=True),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("key_hash"),
    ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
)
# Serves: the keys of a user, the newest first.
Index("api_keys_by_user", api_keys.c.user_id, api_keys.c.id)

# Refers to nothing: an event outlives what it is about.
audit_events = Table(
    "audit_events",
    metadata,
    text_column("id"),
    big("time"),
    text_column("user_id"),
    text_column("credential"),
    text_column("credential_id"),
    text_column("method"),
    text_column("target"),
    text_column("address"),
    text_column("request_id"),
    text_column("code"),
    PrimaryKeyConstraint("id"),
)
# Serve: the events of all, of a user, of a method, the newest first.
Index("audit_events_by_time", audit_events.c.time, audit_events.c.id)
Index("audit_events_by_user", audit_events.c.user_id, audit_events.c.time, audit_events.c.id)
Index("audit_events_by_method", audit_events.c.method, audit_events.c.time, audit_events.c.id)
