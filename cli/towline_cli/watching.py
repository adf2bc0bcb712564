"""Follows a run to its end: events and log lines go to a view as they come."""

import asyncio
import sys
from contextlib import suppress
from typing import Final

from rich.console import Console

from towline.v1.run_pb2 import Run
from towline_cli.live_view import LiveView
from towline_cli.options import OutputFormat
from towline_cli.views import ItemsView, PlainView, View
from towline_sdk.client import Client

REFRESH_SECONDS: Final = 0.125


def view_for(run_id: str, output: OutputFormat) -> View:
    """Returns the view that suits the output: live on a terminal only."""
    if output is OutputFormat.ID:
        return View()
    if output is not OutputFormat.TABLE:
        return ItemsView(output)
    return LiveView(run_id, Console(highlight=False)) if sys.stdout.isatty() else PlainView()


async def watch(client: Client, run_id: str, view: View) -> Run:
    """Returns the run once it has ended and the view has seen all its events and log lines."""
    view.expect((await client.runs.steps(run_id)).steps)
    with view:
        ticker = asyncio.create_task(_tick(view))
        try:
            await asyncio.gather(_feed_events(client, run_id, view), _feed_lines(client, run_id, view))
        finally:
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker
    return await client.runs.get(run_id)


async def _feed_events(client: Client, run_id: str, view: View) -> None:
    async for event in client.runs.watch(run_id):
        view.event(event)


async def _feed_lines(client: Client, run_id: str, view: View) -> None:
    async for line in client.runs.logs(run_id, follow=True):
        view.line(line)


async def _tick(view: View) -> None:
    while True:
        view.refresh()
        await asyncio.sleep(REFRESH_SECONDS)
