"""Rings between replicas through LISTEN and NOTIFY of the database that they share.

Never in the transactions of the store, whose commits a NOTIFY would put one behind the other: connections of its own.
"""

import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from towline_controlplane.relay import Link, explained

CHANNEL: Final = "towline_doorbell"
_CONNECTION: Final = {"connect_timeout": "2", "fallback_application_name": "towline-doorbell"}
_NOTIFY = f"SELECT pg_notify('{CHANNEL}', %s)"


class PostgresWire:
    """The PostgreSQL database at `url`; not through a pool that hands out other sessions between transactions."""

    name = "postgresql"
    most_bytes = 7_999
    """What PostgreSQL takes as payload."""

    def __init__(self, url: str) -> None:
        parameters = conninfo_to_dict(url)
        self._secret = str(parameters["password"]) if parameters.get("password") else None
        self._conninfo = make_conninfo("", **{**_CONNECTION, **parameters})

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncGenerator[Link]:
        """Listens on one connection, and will notify on another: one that listens is busy."""
        async with contextlib.AsyncExitStack() as stack:
            with _translated(self._secret):
                ear = await stack.enter_async_context(await self._open())
                await ear.execute(f"LISTEN {CHANNEL}")
                mouth = await stack.enter_async_context(await self._open())
            notifications = await stack.enter_async_context(contextlib.aclosing(ear.notifies()))
            yield _PostgresLink(mouth, notifications, self._secret)

    async def _open(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(self._conninfo, autocommit=True)


class _PostgresLink:
    def __init__(
        self, mouth: AsyncConnection[Any], notifications: AsyncGenerator[psycopg.Notify], secret: str | None
    ) -> None:
        self._mouth = mouth
        self._notifications = notifications
        self._secret = secret

    async def send(self, text: str) -> None:
        with _translated(self._secret):
            await self._mouth.execute(_NOTIFY, (text,))

    async def receive(self) -> str:
        with _translated(self._secret):
            return (await anext(self._notifications)).payload


@contextlib.contextmanager
def _translated(secret: str | None) -> Generator[None]:
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise explained(error, secret) from None
