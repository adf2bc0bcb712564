"""What a relay does with a wire: one message at a time, nothing lost that it could still say, nothing unbounded."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from doorbell_replicas import PATIENCE_SECONDS, QUICK, STEADY, Replica, heard, replica
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from towline_controlplane.bus import EVERYBODY, queue_topic, run_topic
from towline_controlplane.calls import EVERYTHING, MOST_TOPICS, decode
from towline_controlplane.composition import relay_of
from towline_controlplane.relay import Alone, Pace, Relay, WireDown
from towline_controlplane.settings import Settings

A, B, C = map(run_topic, "abc")


class FakeWire:
    """A wire in memory: what is sent is held until it is let through, and then comes back."""

    name = "fake"
    most_bytes = 1_000_000

    def __init__(self) -> None:
        self.refusals = 0
        self.deaf = False
        self.silent = False
        self._through = asyncio.Semaphore(0)
        self._sent: asyncio.Queue[str] = asyncio.Queue()
        self._arriving: asyncio.Queue[str | WireDown] = asyncio.Queue()
        self._under_way = 0

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator["FakeWire"]:
        if self.refusals:
            self.refusals -= 1
            raise WireDown("refused")
        if self.silent:
            await asyncio.Event().wait()
        yield self

    async def send(self, text: str) -> None:
        self._under_way += 1
        assert self._under_way == 1
        self._sent.put_nowait(text)
        try:
            if decode(text).calls:
                await self._through.acquire()
        finally:
            self._under_way -= 1
        if not self.deaf:
            self._arriving.put_nowait(text)

    async def receive(self) -> str:
        arrived = await self._arriving.get()
        if isinstance(arrived, WireDown):
            raise arrived
        return arrived

    def let_through(self) -> None:
        self._through.release()

    def cut(self) -> None:
        self._arriving.put_nowait(WireDown("cut"))

    async def sends(self) -> dict[str, int]:
        """Returns the calls that are sent next; proofs of life have none."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if calls := decode(await self._sent.get()).calls:
                    return dict(calls)

    @property
    def sends_more(self) -> bool:
        return any(decode(self._sent.get_nowait()).calls for _ in range(self._sent.qsize()))


def play(scenario: Callable[[Replica, FakeWire], Awaitable[None]], pace: Pace = STEADY) -> None:
    async def with_wire() -> None:
        wire = FakeWire()
        async with replica(wire, pace) as it:
            await it.health.is_up()
            await scenario(it, wire)

    asyncio.run(with_wire())


def test_what_rings_during_a_message_is_the_next_message() -> None:
    async def scenario(it: Replica, wire: FakeWire) -> None:
        it.doorbell.ring([A])
        assert await wire.sends() == {A: EVERYBODY}
        for topics in ([B], [C, B], [B]):
            it.doorbell.ring(topics)
        it.doorbell.ring_in_turn({queue_topic("q"): 2})
        it.doorbell.ring_in_turn({queue_topic("q"): 3})
        assert not wire.sends_more
        wire.let_through()
        assert await wire.sends() == {B: EVERYBODY, C: EVERYBODY, queue_topic("q"): 5}

    play(scenario)


def test_more_than_is_remembered_becomes_everything() -> None:
    async def scenario(it: Replica, wire: FakeWire) -> None:
        it.doorbell.ring([A])
        await wire.sends()
        for number in range(2 * MOST_TOPICS):
            it.doorbell.ring([run_topic(str(number))])
        wire.let_through()
        assert await wire.sends() == {EVERYTHING: EVERYBODY}

    play(scenario)


def test_what_a_cut_kept_from_others_is_said_after_it() -> None:
    async def scenario(it: Replica, wire: FakeWire) -> None:
        it.doorbell.ring([A])
        await wire.sends()
        wire.refusals = 3
        wire.cut()
        it.doorbell.ring([B])
        assert await wire.sends() == {A: EVERYBODY, B: EVERYBODY}

    play(scenario, QUICK)


def test_after_a_cut_whoever_listens_here_looks() -> None:
    async def scenario(it: Replica, wire: FakeWire) -> None:
        async with it.doorbell.listen([A]) as watcher, it.doorbell.listen([], [queue_topic("q")]) as puller:
            wire.cut()
            assert [await heard(watcher), await heard(puller)] == [True, True]

    play(scenario, QUICK)


def test_a_replica_does_not_hear_itself() -> None:
    async def scenario(it: Replica, wire: FakeWire) -> None:
        async with it.doorbell.listen([A, B]) as bell:
            it.doorbell.ring([A])
            await wire.sends()
            assert await bell.wait(0)
            wire.let_through()
            it.doorbell.ring([C])
            await wire.sends()
            assert not await bell.wait(0)

    play(scenario)


def test_a_wire_that_returns_nothing_is_down() -> None:
    async def scenario(it: Replica, wire: FakeWire) -> None:
        wire.deaf = True
        await it.health.is_down()
        wire.deaf = False
        await it.health.is_up()

    play(scenario, QUICK)


def test_a_wire_that_does_not_open_is_down() -> None:
    async def scenario(it: Replica, wire: FakeWire) -> None:
        wire.silent = True
        wire.cut()
        await it.health.is_down()
        wire.silent = False
        await it.health.is_up()

    play(scenario, QUICK)


def test_each_change_is_said_once_however_many_attempts_it_takes() -> None:
    async def scenario(it: Replica, wire: FakeWire) -> None:
        wire.refusals = 5
        wire.cut()
        await it.health.was_down(since=1)
        assert wire.refusals == 0

    with capture_logs() as lines:
        play(scenario, Pace(first_delay_seconds=0.001, longest_delay_seconds=0.01))
    assert [(line["log_level"], line.get("reason")) for line in lines] == [
        ("info", None),
        ("warning", "cut"),
        ("info", None),
    ]


@given(st.integers(0, 10_000))
def test_the_wait_before_another_attempt_grows_up_to_a_bound(failures: int) -> None:
    pace = Pace()
    before, after = pace.delay_seconds(failures), pace.delay_seconds(failures + 4)
    assert pace.first_delay_seconds / 2 <= before <= pace.longest_delay_seconds
    assert after > before or after >= pace.longest_delay_seconds / 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Alone),
        ({"DATABASE_URL": "sqlite:///towline.db"}, Alone),
        ({"DATABASE_URL": "postgresql://host/towline"}, Relay),
        ({"DATABASE_URL": "sqlite:///towline.db", "REDIS_URL": "redis://host"}, Relay),
        ({"DATABASE_URL": "postgresql://host/towline", "REDIS_URL": "no URL at all"}, Relay),
    ],
)
def test_the_settings_choose_the_way_to_the_others(environment: dict[str, str], expected: type) -> None:
    settings = Settings.model_validate({"JWT_SECRET": "a secret of the tests, long enough", **environment})
    assert type(relay_of(settings)) is expected
