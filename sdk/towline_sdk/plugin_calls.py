"""The calls of `PluginService`, a part of `client`."""

from dataclasses import dataclass
from typing import Final

from towline.v1 import plugin_service_pb2 as pb
from towline.v1.plugin_pb2 import Plugin
from towline_sdk.pages import FIRST_PAGE, Page
from towline_sdk.transport import Transport

CHUNK_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class PluginCalls:
    """The registry of plugins."""

    _transport: Transport

    async def push(self, bundle: bytes) -> Plugin:
        """Stores a bundle as a version of its plugin; the same bytes again change nothing."""
        starts = range(0, len(bundle), CHUNK_BYTES) or range(1)
        chunks = [pb.PushPluginRequest(chunk=bundle[at : at + CHUNK_BYTES]) for at in starts]
        return (await self._transport.upload(chunks, pb.PushPluginResponse)).plugin

    async def list(self, page: Page = FIRST_PAGE) -> pb.ListPluginsResponse:
        """Returns a page of built-ins and plugins by name."""
        request = pb.ListPluginsRequest(page_size=page.size, page_token=page.token)
        return await self._transport.call(request, pb.ListPluginsResponse)

    async def get(self, plugin_id: str) -> Plugin:
        """Returns a plugin, by id or name, with its versions."""
        request = pb.GetPluginRequest(plugin_id=plugin_id)
        return (await self._transport.call(request, pb.GetPluginResponse)).plugin
