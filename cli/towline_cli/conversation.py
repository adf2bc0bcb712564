"""How a command talks to the server: one connection in the current session, closed when the command is done."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from towline_cli.sessions import Session, current_session
from towline_sdk.client import Client

ResultT = TypeVar("ResultT")


def converse(talk: Callable[[Client], Awaitable[ResultT]], session: Session | None = None) -> ResultT:
    """Returns what `talk` returns, given a client of the session."""
    session = session or current_session()

    async def connected() -> ResultT:
        async with Client(session.server, session.token) as client:
            return await talk(client)

    return asyncio.run(connected())
