"""Rings between replicas through Redis pub/sub: nothing is stored there, and nothing depends on it (I17)."""

import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from towline_controlplane.relay import Link, WireDown, explained

CHANNEL: Final = "towline:doorbell"
_TIMEOUT_SECONDS: Final = 2.0


class RedisWire:
    """The server at `url`, which may be wrong: that is found out when it is connected to."""

    name = "redis"
    most_bytes = 1 << 16

    def __init__(self, url: str) -> None:
        self._url = url

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncGenerator[Link]:
        """Subscribes, with connections of its own that never reconnect by themselves."""
        client = self._client()
        secret = client.connection_pool.connection_kwargs.get("password")
        async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            with _translated(secret):
                await subscription.subscribe(CHANNEL)
            yield _RedisLink(client, subscription, secret)

    def _client(self) -> Redis:
        try:
            return Redis.from_url(
                self._url,
                socket_timeout=_TIMEOUT_SECONDS,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:  # its message may hold a part of the password
            raise WireDown("REDIS_URL is not of the form redis://user:password@host:port") from None


class _RedisLink:
    def __init__(self, client: Redis, subscription: Any, secret: str | None) -> None:
        self._client = client
        self._subscription = subscription
        self._secret = secret

    async def send(self, text: str) -> None:
        with _translated(self._secret):
            await self._client.publish(CHANNEL, text)

    async def receive(self) -> str:
        with _translated(self._secret):
            while True:
                message = await self._subscription.get_message(timeout=None)
                if message is not None:
                    return message["data"].decode(errors="replace")


@contextlib.contextmanager
def _translated(secret: str | None) -> Generator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise explained(error, secret) from None
