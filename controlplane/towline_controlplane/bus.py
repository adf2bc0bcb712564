"""The doorbell: tells waiters that something may be there to fetch. A hint, never the truth (I17).

A topic is rung after the commit that gives it something; whoever waits looks at the store again. A ring that is lost
costs the poll interval of the waiter and nothing else.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

STOPPING_TOPIC = "stopping"
"""Rung when this process is about to stop: who waits answers and lets go."""

QUEUES_TOPIC = "queues"
"""Rung when a queue that nobody knew appears."""


def queue_topic(queue_id: str) -> str:
    """Rung when a step of the queue becomes dispatchable."""
    return f"queue:{queue_id}"


def run_topic(run_id: str) -> str:
    """Rung when a run has new events."""
    return f"run:{run_id}"


def logs_topic(run_id: str) -> str:
    """Rung when an attempt of the run has new log lines."""
    return f"logs:{run_id}"


class Bell(Protocol):
    """One waiter's ear on some topics. What rings between two waits is not missed."""

    async def __aenter__(self) -> Self:
        """Starts to listen."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops to listen."""
        ...

    async def wait(self, timeout_seconds: float) -> bool:
        """Returns True as soon as a topic has rung since the last wait, False after the timeout."""
        ...


class Doorbell(Protocol):
    """Rings topics to everybody who listens."""

    def ring(self, topics: Iterable[str]) -> None:
        """Wakes the waiters of the topics; never blocks, never fails."""
        ...

    def listen(self, topics: Iterable[str]) -> Bell:
        """Returns an ear on the topics, to be entered before the store is first looked at."""
        ...


class InProcessBell:
    """An asyncio event that its topics set."""

    def __init__(self, doorbell: "InProcessDoorbell", topics: Iterable[str]) -> None:
        self._doorbell = doorbell
        self._topics = frozenset(topics)
        self._rung = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Starts to listen."""
        for topic in self._topics:
            self._doorbell.listeners[topic].add(self._rung)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops to listen."""
        for topic in self._topics:
            ears = self._doorbell.listeners[topic]
            ears.discard(self._rung)
            if not ears:
                del self._doorbell.listeners[topic]

    async def wait(self, timeout_seconds: float) -> bool:
        """Returns True as soon as a topic has rung since the last wait, False after the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


class InProcessDoorbell:
    """The doorbell of a single control plane: waiters and ringers share its event loop."""

    def __init__(self) -> None:
        self.listeners: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def ring(self, topics: Iterable[str]) -> None:
        """Wakes the waiters of the topics."""
        for topic in topics:
            for rung in self.listeners.get(topic, ()):
                rung.set()

    def listen(self, topics: Iterable[str]) -> InProcessBell:
        """Returns an ear on the topics."""
        return InProcessBell(self, topics)
