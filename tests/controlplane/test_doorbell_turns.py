"""Who is woken for what only one can have: as many as there is of it, in line, and nobody sleeps beside work (I28)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from towline_controlplane.bus import EVERYBODY, STOPPING_TOPIC, Doorbell, InProcessDoorbell, run_topic

QUEUES = ("a", "b")
QUIET_ROUNDS = 12
FOREVER_SECONDS = 3600.0


@dataclass(slots=True)
class Puller:
    """Stands in line, looks, sleeps: what a Pull does, over a store that is a counter."""

    doorbell: Doorbell
    store: Counter[str]
    queues: Sequence[str] = ("a",)
    want: int = 1
    delay: int = 0
    """Rounds of the event loop that the way to the store takes, and as many back."""
    looks: int = 0
    got: int = 0
    sleeps: bool = False

    async def run(self) -> None:
        async with self.doorbell.listen([], self.queues) as bell:
            while True:
                self.looks += 1
                await rounds(self.delay)
                self.got = take(self.store, self.queues, self.want)
                await rounds(self.delay)
                if self.got < self.want:
                    bell.end_turn()
                if self.got:
                    return
                self.sleeps = True
                await bell.wait(FOREVER_SECONDS)
                self.sleeps = False


def take(store: Counter[str], queues: Sequence[str], want: int) -> int:
    got = 0
    for queue in queues:
        taken = min(want - got, store[queue])
        store[queue] -= taken
        got += taken
    return got


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass(slots=True)
class World:
    """Replicas over one store, and the calls that are on their way between them."""

    replicas: list[InProcessDoorbell] = field(default_factory=list[InProcessDoorbell])
    store: Counter[str] = field(default_factory=Counter[str])
    under_way: list[tuple[int, Mapping[str, int]]] = field(default_factory=list[tuple[int, Mapping[str, int]]])
    pullers: list[tuple[Puller, asyncio.Task[None]]] = field(default_factory=list[tuple[Puller, asyncio.Task[None]]])

    @classmethod
    def of(cls, replicas: int) -> "World":
        world = cls()
        world.replicas = [
            InProcessDoorbell(lambda calls, sender=number: world.under_way.append((sender, dict(calls))))
            for number in range(replicas)
        ]
        return world

    async def pull(self, replica: int = 0, **options: object) -> Puller:
        puller = Puller(self.replicas[replica], self.store, **options)  # type: ignore[arg-type]
        self.pullers.append((puller, asyncio.create_task(puller.run())))
        await rounds(1)
        return puller

    def commit(self, replica: int, ready: Mapping[str, int], reporter_wants: int = 0) -> None:
        """Makes steps ready, hands some to who reports, and rings for the rest."""
        self.store.update(ready)
        handed = Counter({queue: take(self.store, [queue], reporter_wants) for queue in ready})
        self.replicas[replica].ring_in_turn(Counter(ready) - handed)

    def deliver(self) -> None:
        calls, self.under_way = self.under_way, []
        for sender, call in calls:
            for number, doorbell in enumerate(self.replicas):
                if number != sender:
                    doorbell.hear(call)

    async def settle(self) -> None:
        """Returns once nothing moves any more."""
        quiet, before = 0, 0
        while quiet < QUIET_ROUNDS:
            self.deliver()
            await rounds(1)
            looks = sum(puller.looks for puller, _ in self.pullers)
            quiet, before = quiet + 1 if looks == before and not self.under_way else 0, looks

    async def end(self) -> None:
        for _, task in self.pullers:
            task.cancel()
        await asyncio.gather(*[task for _, task in self.pullers], return_exceptions=True)


Operation = Callable[[World], Awaitable[object]]
replica = st.integers(0, 1)
count = st.integers(1, 4)


def pull(replica: int, queues: list[str], want: int, delay: int) -> Operation:
    return lambda world: world.pull(replica, queues=queues, want=want, delay=delay)


def commit(replica: int, ready: dict[str, int], reporter_wants: int) -> Operation:
    async def apply(world: World) -> None:
        world.commit(replica, ready, reporter_wants)

    return apply


def cancel(index: int) -> Operation:
    async def apply(world: World) -> None:
        if world.pullers:
            world.pullers[index % len(world.pullers)][1].cancel()

    return apply


async def deliver(world: World) -> None:
    world.deliver()


def reconnect(replica: int) -> Operation:
    async def apply(world: World) -> None:
        world.replicas[replica].hear_everything()

    return apply


def step(count: int) -> Operation:
    return lambda world: rounds(count)


operations = st.lists(
    st.one_of(
        st.builds(pull, replica, st.lists(st.sampled_from(QUEUES), min_size=1, unique=True), count, st.integers(0, 3)),
        st.builds(commit, replica, st.dictionaries(st.sampled_from(QUEUES), count, min_size=1), st.integers(0, 2)),
        st.builds(cancel, st.integers(0, 20)),
        st.just(deliver),
        st.builds(reconnect, replica),
        st.builds(step, count),
        st.builds(step, count),
    ),
    max_size=40,
)


@settings(max_examples=400)
@given(operations)
def test_nobody_sleeps_while_there_is_something_left(operations: list[Operation]) -> None:
    async def scenario() -> None:
        world = World.of(2)
        for operation in operations:
            await operation(world)
        await world.settle()
        asleep = [puller for puller, task in world.pullers if puller.sleeps and not task.done()]
        assert [puller for puller in asleep if any(world.store[queue] for queue in puller.queues)] == []
        await world.end()
        assert all(not doorbell.lines and not doorbell.listeners for doorbell in world.replicas)

    asyncio.run(scenario())


def test_as_many_are_woken_as_there_is_work_and_those_that_waited_longest() -> None:
    async def scenario() -> None:
        world = World.of(1)
        pullers = [await world.pull() for _ in range(50)]
        await world.settle()
        world.commit(0, {"a": 3})
        await world.settle()
        assert [puller.got for puller in pullers] == [1] * 3 + [0] * 47
        # Each that got all it wanted had one more look, in case there was more.
        assert sum(puller.looks for puller in pullers) - 50 == 3 + 3
        await world.end()

    asyncio.run(scenario())


def test_what_the_reporter_takes_itself_wakes_nobody() -> None:
    async def scenario() -> None:
        world = World.of(2)
        puller = await world.pull()
        await world.settle()
        world.commit(0, {"a": 1}, reporter_wants=1)
        await world.settle()
        assert puller.looks == 1
        await world.end()

    asyncio.run(scenario())


def test_one_replica_wakes_the_pulls_of_another_for_what_its_own_do_not_take() -> None:
    async def scenario() -> None:
        world = World.of(2)
        here = await world.pull(0)
        there = [await world.pull(1) for _ in range(5)]
        await world.settle()
        world.commit(0, {"a": 1})
        assert not any(call for _, call in world.under_way)
        await world.settle()
        assert (here.got, [puller.got for puller in there]) == (1, [0] * 5)
        world.commit(0, {"a": 2})
        await world.settle()
        assert sum(puller.got for puller in there) == 2
        await world.end()

    asyncio.run(scenario())


def test_a_turn_of_somebody_who_goes_away_is_passed_on() -> None:
    async def scenario() -> None:
        world = World.of(1)
        first, second = await world.pull(), await world.pull()
        await world.settle()
        world.commit(0, {"a": 1})
        world.pullers[0][1].cancel()
        await world.settle()
        assert (first.got, second.got) == (0, 1)
        await world.end()

    asyncio.run(scenario())


def test_a_ring_between_the_look_and_the_wait_is_not_missed() -> None:
    async def scenario() -> None:
        doorbell = InProcessDoorbell()
        async with doorbell.listen([], QUEUES) as bell:
            for topics in (["a"], ["a", "a"], ["b", "a"], ["a", "b", "b"]):
                for topic in topics:
                    doorbell.ring_in_turn({topic: 1})
                bell.end_turn()
                assert await bell.wait(FOREVER_SECONDS)
                # It has its turn, and is looking: nobody is in line.
                doorbell.ring_in_turn({"b": 1})
                bell.end_turn()
                assert await bell.wait(FOREVER_SECONDS)
                bell.end_turn()
                assert not await bell.wait(0)

    asyncio.run(scenario())


def test_what_rang_while_all_were_looking_is_seen_by_who_comes_next() -> None:
    async def scenario() -> None:
        calls: list[Mapping[str, int]] = []
        doorbell = InProcessDoorbell(calls.append)
        async with doorbell.listen([], ["a", "b"]) as looking:
            doorbell.ring_in_turn({"a": 1})
            assert await looking.wait(FOREVER_SECONDS)
            doorbell.ring_in_turn({"b": 1})
            async with doorbell.listen([], ["b"]) as coming:
                coming.end_turn()
                assert not await coming.wait(0)
            assert calls[-1] == {}

    asyncio.run(scenario())


def test_who_leaves_passes_on_what_rang_since_its_last_look() -> None:
    async def scenario() -> None:
        calls: list[Mapping[str, int]] = []
        doorbell = InProcessDoorbell(calls.append)
        async with doorbell.listen([], ["a"]) as bell:
            doorbell.ring_in_turn({"a": 1})
            bell.end_turn()
        assert calls[-1] == {"a": 1}
        async with doorbell.listen([], ["a", "b"]) as bell:
            doorbell.ring_in_turn({"a": 1})
            assert await bell.wait(FOREVER_SECONDS)
            doorbell.ring_in_turn({"b": 1})
            bell.end_turn()
        assert calls[-1] == {"b": 1}

    asyncio.run(scenario())


def test_after_an_interruption_one_of_each_line_looks_and_all_who_watch() -> None:
    async def scenario() -> None:
        doorbell = InProcessDoorbell()
        async with (
            doorbell.listen([STOPPING_TOPIC], ["a"]) as first,
            doorbell.listen([STOPPING_TOPIC], ["a"]) as second,
            doorbell.listen([run_topic("r")]) as one_watcher,
            doorbell.listen([run_topic("r")]) as other_watcher,
        ):
            doorbell.hear_everything()
            rung = [await bell.wait(0) for bell in (first, second, one_watcher, other_watcher)]
            assert rung == [True, False, True, True]

    asyncio.run(scenario())


def test_nobody_elsewhere_can_ring_what_is_about_this_process() -> None:
    async def scenario() -> None:
        calls: list[Mapping[str, int]] = []
        doorbell = InProcessDoorbell(calls.append)
        async with doorbell.listen([STOPPING_TOPIC]) as bell:
            doorbell.hear({STOPPING_TOPIC: EVERYBODY})
            assert not await bell.wait(0)
            doorbell.ring([STOPPING_TOPIC])
            assert await bell.wait(0)
            assert not any(calls)

    asyncio.run(scenario())
