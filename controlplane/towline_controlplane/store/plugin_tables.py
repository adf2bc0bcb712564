"""The tables of the plugin registry, a part of `tables`."""

from sqlalchemy import ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table, UniqueConstraint

from towline_controlplane.store.columns import big, count, flag, metadata, one_of, text_column
from towline_dag.choices import SideEffects

plugins = Table(
    "plugins",
    metadata,
    text_column("id"),
    text_column("name"),
    text_column("description"),
    text_column("owner_id"),
    big("create_time"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
)

plugin_versions = Table(
    "plugin_versions",
    metadata,
    text_column("id"),
    text_column("plugin_id"),
    text_column("version"),
    text_column("digest"),
    big("size_bytes"),
    text_column("entry_point"),
    text_column("side_effects"),
    count("timeout_ms"),
    count("memory_limit_mb"),
    text_column("config_schema"),
    text_column("output_schema"),
    flag("enabled"),
    big("create_time"),
    text_column("permissions", default="{}"),
    count("min_sandbox", default="0"),
    text_column("limits", default="{}"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("plugin_id", "version"),
    ForeignKeyConstraint(["plugin_id"], ["plugins.id"]),
    one_of("side_effects", SideEffects),
)
# find_by_digest
Index("plugin_versions_by_digest", plugin_versions.c.digest)
