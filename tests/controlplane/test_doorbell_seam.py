"""What every doorbell does, whatever carries its rings to the other replicas."""

import asyncio
from collections.abc import Callable

import pytest
from doorbell_replicas import Replica, Scenario, heard, passes, replicas

from towline_controlplane.bus import STOPPING_TOPIC, logs_topic, queue_topic, run_topic
from towline_controlplane.calls import MOST_TOPICS
from towline_controlplane.redis_wire import RedisWire
from towline_controlplane.relay import Wire
from towline_controlplane.store.notifications import PostgresWire

Play = Callable[[Scenario], None]


@pytest.fixture(params=["in process", "redis", "postgresql"])
def play(request: pytest.FixtureRequest) -> Play:
    new_wire: Callable[[], Wire] | None = None
    if request.param == "redis":
        redis_url = request.getfixturevalue("redis_url")
        new_wire = lambda: RedisWire(redis_url)  # noqa: E731
    elif request.param == "postgresql":
        postgres_url = request.getfixturevalue("postgres_url")
        new_wire = lambda: PostgresWire(postgres_url)  # noqa: E731

    async def among_replicas(scenario: Scenario) -> None:
        async with replicas(new_wire) as (near, far):
            await scenario(near, far)

    return lambda scenario: asyncio.run(among_replicas(scenario))


def test_a_ring_wakes_all_who_listen_on_both_sides(play: Play) -> None:
    async def scenario(near: Replica, far: Replica) -> None:
        topic = run_topic("r")
        async with (
            near.doorbell.listen([topic, logs_topic("r")]) as one,
            far.doorbell.listen([topic]) as two,
            far.doorbell.listen([logs_topic("r"), topic]) as three,
        ):
            near.doorbell.ring([topic])
            assert await one.wait(0), "at once, without a detour"
            assert [await heard(two), await heard(three)] == [True, True]
            far.doorbell.ring([logs_topic("r")])
            assert [await heard(one), await heard(three)] == [True, True]
            await passes(near, far)
            assert not await two.wait(0)

    play(scenario)


def test_nothing_is_missed_between_two_waits(play: Play) -> None:
    async def scenario(near: Replica, far: Replica) -> None:
        async with far.doorbell.listen([run_topic("r")], [queue_topic("q")]) as bell:
            near.doorbell.ring([run_topic("r")])
            await passes(near, far, "run:a")
            assert await bell.wait(0)
            near.doorbell.ring_in_turn({queue_topic("q"): 1})
            await passes(near, far, "run:b")
            assert await bell.wait(0)
            assert not await bell.wait(0)

    play(scenario)


def test_what_one_can_have_wakes_so_many_there(play: Play) -> None:
    async def scenario(near: Replica, far: Replica) -> None:
        queue = queue_topic("q")
        async with (
            far.doorbell.listen([], [queue]) as first,
            far.doorbell.listen([], [queue]) as second,
            far.doorbell.listen([], [queue]) as third,
        ):
            near.doorbell.ring_in_turn({queue: 2})
            await passes(near, far)
            assert [await bell.wait(0) for bell in (first, second, third)] == [True, True, False]

    play(scenario)


def test_topics_that_nobody_listens_to_are_nothing(play: Play) -> None:
    async def scenario(near: Replica, far: Replica) -> None:
        async with far.doorbell.listen([run_topic("other")], [queue_topic("other")]) as bell:
            near.doorbell.ring([run_topic("r"), logs_topic("other"), "", "*other"])
            near.doorbell.ring_in_turn({queue_topic("q"): 3})
            await passes(near, far)
            assert not await bell.wait(0)
        assert not far.doorbell.lines
        assert not far.doorbell.listeners

    play(scenario)


def test_what_is_about_one_process_stays_there(play: Play) -> None:
    async def scenario(near: Replica, far: Replica) -> None:
        async with near.doorbell.listen([STOPPING_TOPIC]) as here, far.doorbell.listen([STOPPING_TOPIC]) as there:
            near.doorbell.ring([STOPPING_TOPIC])
            await passes(near, far)
            assert await here.wait(0)
            assert await there.wait(0) is (near is far)

    play(scenario)


def test_a_flood_arrives_as_a_whole(play: Play) -> None:
    """More than fits into a message, and more than is remembered."""

    async def scenario(near: Replica, far: Replica) -> None:
        for count in (400, 3 * MOST_TOPICS):
            topics = [run_topic(f"{number:036}") for number in range(count)]
            bells = [far.doorbell.listen([topic]) for topic in topics]
            for bell in bells:
                await bell.__aenter__()
            near.doorbell.ring(topics)
            assert all([await heard(bell) for bell in bells])
            for bell in bells:
                await bell.__aexit__(None, None, None)

    play(scenario)


def test_ringing_never_waits(play: Play) -> None:
    """Ringing is no coroutine: a thousand commits ring before anything else gets its turn."""

    async def scenario(near: Replica, far: Replica) -> None:
        async with far.doorbell.listen([run_topic("last")]) as bell:
            for number in range(1000):
                near.doorbell.ring([run_topic(str(number))])
            near.doorbell.ring([run_topic("last")])
            assert await heard(bell)

    play(scenario)
