"""Puts the application together: the API, its documentation and the probes, in one envelope."""

import asyncio

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from towline_gateway import contract, problems, routes
from towline_gateway.api import Api
from towline_gateway.codec import render
from towline_gateway.compression import Compression
from towline_gateway.control_plane import Readiness
from towline_gateway.cors import Cors
from towline_gateway.docs_page import DocsPage
from towline_gateway.envelope import Envelope
from towline_gateway.openapi import document


def build_app(channel: grpc.aio.Channel, stopping: asyncio.Event, origins: frozenset[str] = frozenset()) -> Starlette:
    """Returns the whole HTTP application over a channel; setting `stopping` ends its open streams.

    Pages of the named `origins` may use it, and those of its own.
    """
    table = routes.derive(contract.services())
    openapi = document(table)
    readiness = Readiness(channel)
    openapi_text = render(openapi)

    async def health(request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def ready(request: Request) -> Response:
        if obstacle := await readiness.obstacle():
            raise problems.unavailable(obstacle)
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def openapi_json(request: Request) -> Response:
        return Response(openapi_text, media_type="application/json")

    async def home(request: Request) -> Response:
        return RedirectResponse("/docs")

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/healthz", health),
            Route("/readyz", ready),
            Route("/openapi.json", openapi_json),
            *DocsPage(openapi).routes(),
        ],
        middleware=[Middleware(Cors, origins), Middleware(Envelope), Middleware(Compression)],
        exception_handlers={HTTPException: _page_problem},
    )
    app.router.default = Api(table, channel, stopping)
    return app


async def _page_problem(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (a POST to a page) in the form of all others."""
    allowed = (error.headers or {}).get("Allow") if isinstance(error, HTTPException) else None
    raise problems.method_not_allowed(allowed) if allowed else problems.of(error)
