"""How a command talks to the server: one connection in the current context, closed when the command is done."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from towline_cli.contexts import Context, selected
from towline_sdk.client import Client

ResultT = TypeVar("ResultT")


def converse(talk: Callable[[Client], Awaitable[ResultT]], context: Context | None = None) -> ResultT:
    """Returns what `talk` returns, given a client of the context."""
    context = context or selected()
    ca_file = Path(context.ca_file) if context.ca_file else None

    async def connected() -> ResultT:
        async with Client(context.server, context.token, ca_file=ca_file) as client:
            return await talk(client)

    return asyncio.run(connected())
