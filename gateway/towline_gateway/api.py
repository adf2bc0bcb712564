"""The API itself: finds the binding of a request and lets its endpoint answer."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from towline_gateway import problems
from towline_gateway.downloads import DownloadEndpoint
from towline_gateway.routes import Binding, Kind, Match, RouteTable
from towline_gateway.streams import StreamEndpoint
from towline_gateway.unary import UnaryEndpoint
from towline_gateway.uploads import UploadEndpoint

Endpoint = Callable[[Request, tuple[str, ...]], Awaitable[ASGIApp]]


class Api:
    """Serves every binding of a route table over one channel."""

    def __init__(self, table: RouteTable, channel: grpc.aio.Channel, stopping: asyncio.Event) -> None:
        def endpoint(binding: Binding) -> Endpoint:
            match binding.kind:
                case Kind.STREAM:
                    return StreamEndpoint(binding, channel, stopping)
                case Kind.DOWNLOAD:
                    return DownloadEndpoint(binding, channel)
                case Kind.UPLOAD:
                    return UploadEndpoint(binding, channel)
                case Kind.UNARY:
                    return UnaryEndpoint(binding, channel)

        self._table = table
        self._endpoints = {binding: endpoint(binding) for binding in table.bindings}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; raises a problem for 404 and 405."""
        request = Request(scope, receive)
        match = self._match(scope)
        answer = await self._endpoints[match.binding](request, match.values)
        await answer(scope, receive, send)

    def _match(self, scope: Scope) -> Match:
        offers = self._table.find(scope["raw_path"].decode("latin-1"))
        if not offers:
            raise problems.route_not_found()
        match = offers.get(scope["method"])
        if match is None:
            raise problems.method_not_allowed(", ".join(sorted(offers)))
        return match
