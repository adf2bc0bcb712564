"""PluginService: the registry of plugins, built-ins included.

A bundle is stored under its digest before a version names it, and a version never changes. The first to push a name
owns it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from towline.v1 import plugin_pb2
from towline.v1 import plugin_service_pb2 as pb
from towline_controlplane.blobs import Blobs
from towline_controlplane.errors import InvalidArgument, PermissionDenied, PluginVersionExists
from towline_controlplane.ids import new_id
from towline_controlplane.model import Role, User
from towline_controlplane.registry import Plugin, PluginVersion
from towline_controlplane.services import convert
from towline_controlplane.services.bundles import MANIFEST, SpooledBundle, read_bundle, spooled
from towline_controlplane.services.callers import Context, current_user
from towline_controlplane.services.checks import found
from towline_controlplane.services.manifests import Manifest, manifest_of
from towline_controlplane.services.open_streams import OpenStreams
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.store import plugins
from towline_controlplane.store.database import Database, Transaction
from towline_plugins.catalog import BUILTINS

_LIMITS: Final = PageLimits()
_QUERY: Final = "ListPlugins"
_BUILTIN_MESSAGES: Final = {name: convert.builtin(BUILTINS[name]) for name in sorted(BUILTINS)}


@dataclass(frozen=True, slots=True)
class PluginService:
    """Implements `towline.v1.PluginService`; `spool_folder` holds bundles while they arrive."""

    database: Database
    blobs: Blobs
    spool_folder: Path
    pushes: OpenStreams

    async def PushPlugin(
        self, requests: AsyncIterator[pb.PushPluginRequest], _context: Context
    ) -> pb.PushPluginResponse:
        """Stores a bundle as a version of a plugin; the same bytes again change nothing."""
        user = current_user()
        chunks = (request.chunk async for request in requests)
        with self.pushes.admit(user.id):
            async with spooled(chunks, self.spool_folder) as bundle:
                manifest = manifest_of(await asyncio.to_thread(read_bundle, bundle.path))
                if manifest.name.upper() in BUILTINS:
                    raise InvalidArgument.of(f"{MANIFEST}: name", "is the name of a built-in")
                # Asked before the bundle is kept, and again when the version is recorded.
                await self.database.read(lambda tx: _recorded(tx, manifest, bundle, user))
                await self.blobs.put_file(bundle.path, bundle.digest)
            message = await self.database.write(lambda tx: _record(tx, manifest, bundle, user))
        return pb.PushPluginResponse(plugin=message)

    async def ListPlugins(self, request: pb.ListPluginsRequest, _context: Context) -> pb.ListPluginsResponse:
        """Lists built-ins and plugins by name."""
        size = page_size(request.page_size, _LIMITS)
        after = decode_token(request.page_token, (str,), _QUERY)

        def read(tx: Transaction) -> pb.ListPluginsResponse:
            page = gather(
                lambda key, limit: _named_after(tx, str(key[0]) if key else "", limit),
                lambda message: (message.name,),
                after,
                size,
                plugin_pb2.Plugin.ByteSize,
            )
            return pb.ListPluginsResponse(plugins=page.rows, next_page_token=encode_token(page.next_key, _QUERY))

        return await self.database.read(read)

    async def GetPlugin(self, request: pb.GetPluginRequest, _context: Context) -> pb.GetPluginResponse:
        """Returns a plugin, by id or name, with its versions."""
        known = _BUILTIN_MESSAGES.get(request.plugin_id)
        if known is not None:
            return pb.GetPluginResponse(plugin=known)

        def read(tx: Transaction) -> pb.GetPluginResponse:
            row = found(plugins.find_plugin(tx, request.plugin_id), "plugin", request.plugin_id)
            return pb.GetPluginResponse(plugin=_message(tx, row))

        return await self.database.read(read)


def _recorded(tx: Transaction, manifest: Manifest, bundle: SpooledBundle, user: User) -> tuple[Plugin | None, bool]:
    """Returns the plugin, and whether it has this version; raises if the name or the version is another's."""
    plugin = plugins.find_plugin(tx, manifest.name)
    if plugin is None:
        return None, False
    if user.id != plugin.owner_id and user.role is not Role.ADMIN:
        raise PermissionDenied(f"the plugin {plugin.name} has another owner")
    version = plugins.find_version(tx, plugin.id, manifest.version)
    if version is not None and version.digest != bundle.digest:
        raise PluginVersionExists(f"version {version.version} of {plugin.name} exists with other bytes")
    return plugin, version is not None


def _record(tx: Transaction, manifest: Manifest, bundle: SpooledBundle, user: User) -> plugin_pb2.Plugin:
    plugin, has_version = _recorded(tx, manifest, bundle, user)
    if plugin is None:
        plugin = Plugin(new_id(), manifest.name, manifest.description, user.id, tx.now)
        plugins.insert_plugin(tx, plugin)
    if not has_version:
        plugins.insert_version(tx, _version(manifest, bundle, plugin.id, tx.now))
    return _message(tx, plugin)


def _version(manifest: Manifest, bundle: SpooledBundle, plugin_id: str, now: int) -> PluginVersion:
    return PluginVersion(
        id=new_id(),
        plugin_id=plugin_id,
        version=manifest.version,
        digest=bundle.digest,
        size_bytes=bundle.size_bytes,
        entry_point=manifest.entry_point,
        side_effects=manifest.side_effects,
        timeout_ms=manifest.timeout_ms,
        memory_limit_mb=manifest.memory_limit_mb,
        config_schema=manifest.config_schema,
        output_schema=manifest.output_schema,
        enabled=True,
        create_time=now,
        permissions=manifest.permissions,
        min_sandbox=manifest.min_sandbox,
        limits=manifest.limits,
    )


def _named_after(tx: Transaction, name: str, limit: int) -> list[plugin_pb2.Plugin]:
    rows = plugins.list_plugins(tx, name, limit)
    return sorted([*_builtins_after(name), *(_message(tx, row) for row in rows)], key=lambda each: each.name)[:limit]


def _builtins_after(name: str) -> Iterator[plugin_pb2.Plugin]:
    return (message for known, message in _BUILTIN_MESSAGES.items() if known > name)


def _message(tx: Transaction, row: Plugin) -> plugin_pb2.Plugin:
    return convert.plugin(row, plugins.list_versions(tx, row.id))
