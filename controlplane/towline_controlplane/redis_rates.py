"""Rates shared by all replicas, in Redis: one script judges and charges, by the clock of Redis.

Of a generous rate several are taken at once and used up here, so that calls wait for no round trip. While Redis is
away, each replica counts for itself: a limit is then as many times higher as there are replicas.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from towline_controlplane.rates import Charge, LocalMeter

PREFIX: Final = "towline:rate:"
_TIMEOUT_SECONDS: Final = 0.5
_AWAY_SECONDS: Final = 5.0
_HELD_SECONDS: Final = 1.0
_TRIPS_PER_SECOND: Final = 20
# Arguments for each key: interval and burst in microseconds, and how many.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full, wait = {}, 0
for i, key in ipairs(KEYS) do
  local interval, burst, count = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  full[i] = math.max(tonumber(redis.call('GET', key) or now), now) + interval * count
  wait = math.max(wait, full[i] - burst - now)
end
if wait > 0 then return wait end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.0f', full[i]), 'PX', math.ceil((full[i] - now) / 1000))
end
return 0
"""

log = structlog.get_logger(__name__)


class RedisMeter:
    """Counts in the Redis at `url`, and in this process while it is away."""

    def __init__(self, url: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._script: Any = self._client.register_script(_SCRIPT)
        self._local = LocalMeter(monotonic)
        self._monotonic = monotonic
        self._away_until = 0.0
        self._held: dict[str, tuple[int, float]] = {}
        """What is left of what was taken for a key, and until when it may be used."""

    async def take(self, charges: Sequence[Charge]) -> float:
        """Takes all charges and returns 0, or takes none and returns in how many seconds there is room for all."""
        now = self._monotonic()
        if now < self._away_until:
            return await self._local.take(charges)
        missing = [each for each in charges if not self._holds(each.key, now)]
        try:
            wait, taken = await self._charge(missing)
        except (RedisError, OSError) as error:
            log.warning("rates are counted by each replica alone", reason=type(error).__name__)
            self._away_until = now + _AWAY_SECONDS
            return await self._local.take(charges)
        if wait <= 0:
            self._use(charges, taken, now)
        return wait

    async def reset(self, keys: Iterable[str]) -> None:
        """Forgets what was charged to keys."""
        names = list(keys)
        await self._local.reset(names)
        for name in names:
            self._held.pop(name, None)
        try:
            await self._client.delete(*(PREFIX + name for name in names))
        except (RedisError, OSError):  # they are forgotten by themselves soon
            self._away_until = self._monotonic() + _AWAY_SECONDS

    async def run(self) -> None:
        """Keeps the connections until it is cancelled, then closes them."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._client.aclose()

    async def _charge(self, charges: Sequence[Charge]) -> tuple[float, dict[str, int]]:
        """Takes several of each if there is room for so many, else one of each."""
        counts = {each.key: max(1, int(each.rate.per_minute / 60 / _TRIPS_PER_SECOND)) for each in charges}
        if not charges:
            return 0.0, counts
        wait = await self._ask(charges, counts)
        if wait > 0 and max(counts.values()) > 1:
            counts = dict.fromkeys(counts, 1)
            wait = await self._ask(charges, counts)
        return wait, counts

    async def _ask(self, charges: Sequence[Charge], counts: dict[str, int]) -> float:
        arguments: list[int] = []
        for each in charges:
            interval = int(each.rate.interval_seconds * 1_000_000)
            arguments += [interval, interval * each.rate.burst, counts[each.key]]
        return int(await self._script(keys=[PREFIX + each.key for each in charges], args=arguments)) / 1_000_000

    def _holds(self, key: str, now: float) -> bool:
        left, until = self._held.get(key, (0, 0.0))
        return left > 0 and now < until

    def _use(self, charges: Sequence[Charge], taken: dict[str, int], now: float) -> None:
        for each in charges:
            left, until = (taken[each.key], now + _HELD_SECONDS) if each.key in taken else self._held[each.key]
            if left > 1:
                self._held[each.key] = left - 1, until
            else:
                self._held.pop(each.key, None)
        if len(self._held) > 10_000:
            self._held = {key: held for key, held in self._held.items() if held[1] > now}
