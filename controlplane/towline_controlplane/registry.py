"""The nouns of the plugin registry: frozen rows, as in `model`."""

from dataclasses import dataclass

from towline_dag.choices import DEFAULT_LIMITS, Limits, Network, SideEffects


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a plugin says that it needs, and may not have beyond."""

    network: Network = Network.FULL
    secrets: tuple[str, ...] = ()
    """Names of secrets."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A named plugin of the registry."""

    id: str
    name: str
    description: str
    owner_id: str
    create_time: int


@dataclass(frozen=True, slots=True)
class PluginVersion:
    """An immutable bundle of a plugin. Schemas are JSON text."""

    id: str
    plugin_id: str
    version: str
    digest: str
    size_bytes: int
    entry_point: str
    side_effects: SideEffects
    timeout_ms: int
    memory_limit_mb: int
    config_schema: str
    output_schema: str
    enabled: bool
    create_time: int
    permissions: Permissions = Permissions()
    min_sandbox: int = 0
    """The weakest sandbox that it may run in."""
    limits: Limits = DEFAULT_LIMITS
