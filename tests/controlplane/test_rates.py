"""Rates: every meter lets the same through, and replicas that share one share the rate."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import pytest
from valkey_server import ValkeyServer

from towline_controlplane.errors import RateLimited
from towline_controlplane.rates import Charge, LocalMeter, Meter, Rate, charge
from towline_controlplane.redis_rates import RedisMeter

SLOW = Rate(per_minute=0.5, burst=3)
"""Nothing of it comes back during a test."""


@asynccontextmanager
async def _running(meter: Meter) -> AsyncGenerator[Meter]:
    running = asyncio.create_task(meter.run())
    await asyncio.sleep(0)
    try:
        yield meter
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture(params=["local", "redis"])
def new_meter(request: pytest.FixtureRequest) -> Callable[[], Meter]:
    if request.param == "local":
        return LocalMeter
    url: str = request.getfixturevalue("redis_url")
    return lambda: RedisMeter(url)


def _new(rate: Rate = SLOW) -> Charge:
    return Charge(f"test:{uuid4()}", rate)


def test_a_bucket_gives_its_burst_and_then_says_how_long_to_wait(new_meter: Callable[[], Meter]) -> None:
    async def scenario() -> None:
        async with _running(new_meter()) as meter:
            one, other = _new(), _new()
            assert [await meter.take([one]) for _ in range(3)] == [0, 0, 0]
            assert 110 < await meter.take([one]) <= 120
            assert await meter.take([other]) == 0
            await meter.reset([one.key])
            assert await meter.take([one]) == 0

    asyncio.run(scenario())


def test_charges_are_taken_together_or_not_at_all(new_meter: Callable[[], Meter]) -> None:
    async def scenario() -> None:
        async with _running(new_meter()) as meter:
            full, free = _new(Rate(0.5, 1)), _new()
            assert await meter.take([full]) == 0
            for _ in range(5):
                assert await meter.take([free, full]) > 0
            assert [await meter.take([free]) for _ in range(3)] == [0, 0, 0]
            assert await meter.take([]) == 0

    asyncio.run(scenario())


def test_many_at_once_get_no_more_than_the_burst(new_meter: Callable[[], Meter]) -> None:
    async def scenario() -> None:
        async with _running(new_meter()) as meter:
            one = _new()
            waits = await asyncio.gather(*[meter.take([one]) for _ in range(20)])
            assert sorted(wait > 0 for wait in waits) == [False] * 3 + [True] * 17

    asyncio.run(scenario())


def test_a_generous_rate_is_not_exceeded_although_several_are_taken_at_once(new_meter: Callable[[], Meter]) -> None:
    async def scenario() -> None:
        async with _running(new_meter()) as meter:
            generous = _new(Rate(6_000, 100))
            waits = [await meter.take([generous]) for _ in range(100)]
            assert not any(waits)

    asyncio.run(scenario())


def test_replicas_share_what_is_in_redis(redis_url: str) -> None:
    async def scenario() -> None:
        async with _running(RedisMeter(redis_url)) as first, _running(RedisMeter(redis_url)) as second:
            one = _new()
            waits = [await meter.take([one]) for meter in (first, second) * 3]
            assert [wait > 0 for wait in waits] == [False] * 3 + [True] * 3
            await second.reset([one.key])
            assert await first.take([one]) == 0

    asyncio.run(scenario())


def test_without_redis_each_counts_for_itself_and_comes_back(valkey: ValkeyServer) -> None:
    async def scenario() -> None:
        now = [100.0]
        async with _running(RedisMeter(valkey.url, lambda: now[0])) as meter:
            one = _new()
            assert await meter.take([one]) == 0
            await asyncio.to_thread(valkey.stop)
            assert [await meter.take([one]) > 0 for _ in range(4)] == [False] * 3 + [True]
            await meter.reset([one.key])
            assert await meter.take([one]) == 0
            await asyncio.to_thread(valkey.start)
            now[0] += 6
            assert [await meter.take([one]) > 0 for _ in range(4)] == [False] * 3 + [True]

    asyncio.run(scenario())


def test_a_bucket_fills_evenly() -> None:
    async def scenario() -> None:
        now = [0.0]
        meter, one = LocalMeter(lambda: now[0]), Charge("k", Rate(per_minute=60, burst=2))
        assert [await meter.take([one]) for _ in range(3)] == [0, 0, 1]
        now[0] = 0.5
        assert await meter.take([one]) == 0.5
        now[0] = 1.0
        assert [await meter.take([one]) for _ in range(2)] == [0, 1]
        now[0] = 1_000
        assert [await meter.take([one]) for _ in range(3)] == [0, 0, 1]

    asyncio.run(scenario())


def test_keys_are_forgotten_and_bounded() -> None:
    async def scenario() -> None:
        now = [0.0]
        meter = LocalMeter(lambda: now[0], most_keys=10)
        for number in range(100):
            await meter.take([Charge(f"k{number}", SLOW)])
        assert len(meter._full_at) <= 10  # pyright: ignore[reportPrivateUsage]
        assert "k99" in meter._full_at  # pyright: ignore[reportPrivateUsage]

    asyncio.run(scenario())


def test_who_is_refused_is_told_when_to_come_back() -> None:
    async def scenario() -> None:
        meter, one = LocalMeter(lambda: 0.0), Charge("k", Rate(per_minute=60, burst=1))
        await charge(meter, [one])
        with pytest.raises(RateLimited) as caught:
            await charge(meter, [one])
        assert caught.value.retry_seconds == 1

    asyncio.run(scenario())
