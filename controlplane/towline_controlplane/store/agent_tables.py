"""The tables of agents: who they are, how they become agents, and the queues that they take steps from.

Part of `tables`, by whose names everybody else knows them.
"""

from sqlalchemy import CheckConstraint, PrimaryKeyConstraint, Table, UniqueConstraint, false

from towline_controlplane.store.columns import big, count, flag, metadata, partial, text_column

NEXT_CREDENTIAL = "next_credential_hash IS NOT NULL"

queues = Table(
    "queues",
    metadata,
    text_column("id"),
    text_column("labels"),
    count("sandbox_level", default="0"),
    text_column("plugin", null=True),
    text_column("network", default="FULL"),
    count("weight", default="1"),
    count("memory_mb", default="0"),
    count("protocol_version", default="1"),
    PrimaryKeyConstraint("id"),
)

savings = Table(
    "savings",
    metadata,
    text_column("queue_id"),
    text_column("run_id"),
    text_column("node_id"),
    big("since"),
    text_column("saver", null=True),
    big("ask_time"),
    PrimaryKeyConstraint("queue_id"),
)

agents = Table(
    "agents",
    metadata,
    text_column("id"),
    text_column("name"),
    text_column("credential_hash"),
    big("create_time"),
    text_column("session_id", null=True),
    count("slots"),
    text_column("labels"),
    text_column("version"),
    text_column("hostname"),
    text_column("platform"),
    big("renewals"),
    big("lease_expire_time"),
    big("last_seen_time", null=True),
    flag("drained", default=false()),
    count("sandbox_level", default="0"),
    text_column("plugins", default="[]"),
    text_column("sandbox", default="{}"),
    text_column("network_isolation", default="none"),
    count("sandbox_cap", null=True),
    flag("disabled", default=false()),
    text_column("unschedulable", null=True),
    big("memory_bytes", default="0"),
    big("rotation_time", default="0"),
    text_column("next_credential_hash", null=True),
    count("protocol_version", default="1"),
    text_column("lacking", default="[]"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
    UniqueConstraint("credential_hash"),
)
# find_by_credential
partial("agents_by_next_credential", [agents.c.next_credential_hash], NEXT_CREDENTIAL, unique=True)

enrollment_tokens = Table(
    "enrollment_tokens",
    metadata,
    text_column("token_hash"),
    count("uses_left"),
    big("expire_time"),
    big("create_time"),
    PrimaryKeyConstraint("token_hash"),
    CheckConstraint("uses_left >= 0", name="uses_left"),
)
