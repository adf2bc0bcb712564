"""The doorbell: tells waiters that something may be there to fetch. A hint, never the truth (I17).

A topic is rung after the commit that gives it something; whoever waits looks at the store again. A ring that is lost
costs the poll interval of the waiter and nothing else.

What everybody may fetch rings for everybody. What only one can have rings for as many as there is of it, the longest
waiting first: they have their *turn*. Nobody sleeps while there is something left (I28), because a turn ends only with
a look that found the place empty; else it is passed on to the next in line.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import TracebackType
from typing import Final, Protocol, Self

EVERYBODY: Final = 0
"""In calls, instead of a number: rung for everybody who listens to the topic."""

STOPPING_TOPIC: Final = "stopping"
"""Rung when this process is about to stop: who waits answers and lets go."""

MATCHING_TOPIC: Final = "matching"
"""Rung when this process has learned of new queues: who waits may stand in line for more."""

QUEUES_TOPIC: Final = "queues"
"""Rung when a queue that nobody knew appears."""

_OWN_TOPICS: Final = frozenset({STOPPING_TOPIC, MATCHING_TOPIC})
"""About this process only."""


def agent_topic(agent_id: str) -> str:
    """Rung when an agent may be given more, or nothing any more."""
    return f"agent:{agent_id}"


def queue_topic(queue_id: str) -> str:
    """Rung in turn when steps of the queue become dispatchable."""
    return f"queue:{queue_id}"


def credentials_topic(owner_id: str) -> str:
    """Rung when a credential of a user or agent counts no more."""
    return f"credentials:{owner_id}"


def run_topic(run_id: str) -> str:
    """Rung when a run has new events."""
    return f"run:{run_id}"


def logs_topic(run_id: str) -> str:
    """Rung when an attempt of the run has new log lines."""
    return f"logs:{run_id}"


class Bell(Protocol):
    """One waiter's ear on some topics. What rings between two waits is not missed."""

    async def __aenter__(self) -> Self:
        """Starts to listen, and stands in line."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops to listen; a turn that is not over is passed on."""
        ...

    async def wait(self, timeout_seconds: float) -> bool:
        """Returns True as soon as a topic has rung since the last wait, False after the timeout."""
        ...

    def end_turn(self) -> None:
        """Says that a look begun after the last wait has left nothing of what the waiter stands in line for."""
        ...


class Doorbell(Protocol):
    """Rings topics to those who listen."""

    def ring(self, topics: Iterable[str]) -> None:
        """Wakes everybody who listens to the topics; never blocks, never fails."""
        ...

    def ring_in_turn(self, counts: Mapping[str, int]) -> None:
        """Wakes as many of those in line for each topic as its count says; never blocks, never fails."""
        ...

    def listen(self, topics: Iterable[str], in_turn: Iterable[str] = ()) -> Bell:
        """Returns an ear on `topics` and a place in line for `in_turn`, to be entered before the store is looked at."""
        ...


class InProcessBell:
    """An ear in the event loop of its doorbell."""

    def __init__(self, doorbell: "InProcessDoorbell", topics: Iterable[str], in_turn: Iterable[str]) -> None:
        self._doorbell = doorbell
        self._topics = tuple(dict.fromkeys(topics))
        self._in_turn = tuple(dict.fromkeys(in_turn))
        self._rung = asyncio.Event()
        self._given: dict[str, None] = {}
        """Turns since the last wait."""
        self._taken: dict[str, None] = {}
        """Turns for which the waiter is looking."""

    async def __aenter__(self) -> Self:
        """Starts to listen, and stands in line."""
        for topic in self._topics:
            self._doorbell.listeners.setdefault(topic, {})[self] = None
        for topic in self._in_turn:
            line = self._doorbell.lines.setdefault(topic, _Line())
            line.members += 1
            line.waiting[self] = None
            if line.owed:  # the look that follows is late enough
                line.owed = False
                self._taken[topic] = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops to listen; a turn that is not over is passed on."""
        for topic in self._topics:
            ears = self._doorbell.listeners[topic]
            del ears[self]
            if not ears:
                del self._doorbell.listeners[topic]
        self._doorbell.ring_in_turn(dict.fromkeys([*self._given, *self._taken, *self._leave_lines()], 1))

    async def wait(self, timeout_seconds: float) -> bool:
        """Returns True as soon as a topic has rung since the last wait, False after the timeout."""
        self._stand_in_line()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        self._taken |= self._given
        self._given.clear()
        return True

    def end_turn(self) -> None:
        """Says that a look begun after the last wait has left nothing of what the waiter stands in line for."""
        self._taken.clear()

    def ring(self) -> None:
        """Wakes the waiter, without a turn."""
        self._rung.set()

    def give_turn(self, topic: str) -> None:
        """Wakes the waiter, who leaves all lines until it waits again."""
        self._given[topic] = None
        self._rung.set()
        for each in self._in_turn:
            self._doorbell.lines[each].waiting.pop(self, None)

    def _stand_in_line(self) -> None:
        lines = {topic: self._doorbell.lines[topic] for topic in self._in_turn}
        for topic, line in lines.items():
            if line.owed:
                line.owed = False
                self.give_turn(topic)
        if not self._given:
            for line in lines.values():
                line.waiting[self] = None

    def _leave_lines(self) -> list[str]:
        """Returns the topics whose turn is owed to somebody, of whom nobody is left here."""
        owed: list[str] = []
        for topic in self._in_turn:
            line = self._doorbell.lines[topic]
            line.waiting.pop(self, None)
            line.members -= 1
            if not line.members:
                del self._doorbell.lines[topic]
                owed += [topic] if line.owed else []
        return owed


class _Line:
    """Those who stand in line for a topic; who has a turn is a member, but does not wait.

    A ring that finds only members who have a turn is `owed` to the next of them to wait: it looks again.
    """

    __slots__ = ("members", "owed", "waiting")

    def __init__(self) -> None:
        self.members = 0
        self.waiting: dict[InProcessBell, None] = {}
        self.owed = False


class InProcessDoorbell:
    """The doorbell of this process: waiters and ringers share its event loop.

    What may concern waiters elsewhere is handed to `carry`, as calls: a count for each topic, or EVERYBODY.
    """

    def __init__(self, carry: Callable[[Mapping[str, int]], None] = lambda calls: None) -> None:
        self.listeners: dict[str, dict[InProcessBell, None]] = {}
        self.lines: dict[str, _Line] = {}
        self._carry = carry

    def ring(self, topics: Iterable[str]) -> None:
        """Wakes everybody who listens to the topics."""
        distinct = dict.fromkeys(topics, EVERYBODY)
        for topic in distinct:
            self._ring(topic)
        self._carry({topic: EVERYBODY for topic in distinct if topic not in _OWN_TOPICS})

    def ring_in_turn(self, counts: Mapping[str, int]) -> None:
        """Wakes as many of those in line for each topic; what is left is for waiters elsewhere."""
        woken = {topic: self._give_turns(topic, count) for topic, count in counts.items()}
        self._carry({topic: count - woken[topic] for topic, count in counts.items() if count > woken[topic]})

    def hear(self, calls: Mapping[str, int]) -> None:
        """Wakes waiters of this process only, as calls from elsewhere ask."""
        for topic, count in calls.items():
            if count != EVERYBODY:
                self._give_turns(topic, count)
            elif topic not in _OWN_TOPICS:
                self._ring(topic)

    def hear_everything(self) -> None:
        """Wakes as if every topic had been called from elsewhere: all listeners, and the first in each line."""
        self.hear(dict.fromkeys(self.listeners, EVERYBODY))
        self.hear(dict.fromkeys(self.lines, 1))

    def listen(self, topics: Iterable[str], in_turn: Iterable[str] = ()) -> InProcessBell:
        """Returns an ear on `topics` and a place in line for `in_turn`."""
        return InProcessBell(self, topics, in_turn)

    def _ring(self, topic: str) -> None:
        for bell in self.listeners.get(topic, ()):
            bell.ring()

    def _give_turns(self, topic: str, count: int) -> int:
        line = self.lines.get(topic)
        if line is None:
            return 0
        next_in_line = list(islice(line.waiting, count))
        for bell in next_in_line:
            bell.give_turn(topic)
        line.owed = line.owed or not next_in_line
        return len(next_in_line)
