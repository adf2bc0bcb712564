"""The registry of plugins and their immutable versions."""

import re

from sqlalchemy import or_, select

from towline_controlplane.errors import AlreadyExists, PluginVersionExists
from towline_controlplane.registry import Plugin, PluginVersion
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import PLUGIN, PLUGIN_VERSION, insert_if_absent

_COLUMNS = PLUGIN.columns(tables.plugins)
_VERSION_COLUMNS = PLUGIN_VERSION.columns(tables.plugin_versions)

Precedence = tuple[bool, tuple[int, ...], tuple[tuple[bool, int, str], ...]]


def insert_plugin(tx: Transaction, plugin: Plugin) -> None:
    """Inserts a plugin; raises AlreadyExists if the name is taken."""
    if not insert_if_absent(tx.connection, tables.plugins, PLUGIN.row(plugin)):
        raise AlreadyExists(f"a plugin with the name {plugin.name!r} exists")


def find_plugin(tx: Transaction, id_or_name: str) -> Plugin | None:
    """Returns the plugin with this id, else the one with this name."""
    plugins = tables.plugins.c
    query = select(*_COLUMNS).where(or_(plugins.id == id_or_name, plugins.name == id_or_name))
    return PLUGIN.first(tx.connection, query.order_by(plugins.id != id_or_name))


def list_plugins(tx: Transaction, after_name: str, limit: int) -> list[Plugin]:
    """Returns plugins by name, from behind `after_name`."""
    name = tables.plugins.c.name
    return PLUGIN.all(tx.connection, select(*_COLUMNS).where(name > after_name).order_by(name).limit(limit))


def insert_version(tx: Transaction, version: PluginVersion) -> None:
    """Inserts a version; raises PluginVersionExists if the plugin has it."""
    if not insert_if_absent(tx.connection, tables.plugin_versions, PLUGIN_VERSION.row(version)):
        raise PluginVersionExists(f"version {version.version} of the plugin exists")


def list_versions(tx: Transaction, plugin_id: str) -> list[PluginVersion]:
    """Returns the versions of a plugin, the highest first."""
    query = select(*_VERSION_COLUMNS).where(tables.plugin_versions.c.plugin_id == plugin_id)
    versions = PLUGIN_VERSION.all(tx.connection, query)
    return sorted(versions, key=lambda version: precedence(version.version), reverse=True)


def find_version(tx: Transaction, plugin_id: str, version: str | None) -> PluginVersion | None:
    """Returns a version, enabled or not; for None the highest enabled one."""
    if version is None:
        return next((known for known in list_versions(tx, plugin_id) if known.enabled), None)
    versions = tables.plugin_versions.c
    query = select(*_VERSION_COLUMNS).where(versions.plugin_id == plugin_id, versions.version == version)
    return PLUGIN_VERSION.first(tx.connection, query)


def find_by_digest(tx: Transaction, digest: str) -> PluginVersion | None:
    """Returns a version whose bundle has this digest."""
    query = select(*_VERSION_COLUMNS).where(tables.plugin_versions.c.digest == digest).limit(1)
    return PLUGIN_VERSION.first(tx.connection, query)


def precedence(version: str) -> Precedence:
    """Returns the sort key of a semantic version; every release goes above every pre-release."""
    core, _, pre = version.partition("+")[0].partition("-")
    numbers = tuple(int(number) for number in re.findall(r"\d+", core))
    words = tuple(_word(word) for word in pre.split("."))
    return (not pre, numbers, words)


def _word(word: str) -> tuple[bool, int, str]:
    return (False, int(word), "") if word.isdecimal() else (True, 0, word)
