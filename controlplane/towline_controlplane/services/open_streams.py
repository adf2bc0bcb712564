"""Streams that are open: so many per caller, each until it is refused, all until the server stops."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import Any, Final, TypeVar

from towline_controlplane.errors import LimitExceeded, TowlineError, Unavailable

_RETRY_SECONDS: Final = 1.0
_END: Final = object()

Item = TypeVar("Item")


class OpenStreams:
    """Admits streams up to a number per caller, and relays those that answer until `drain`."""

    def __init__(self, per_caller: int = 200) -> None:
        self._per_caller = per_caller
        self._open: Counter[str] = Counter()
        self._waiting: set[asyncio.Task[Any]] = set()
        self._refused: dict[asyncio.Task[Any], TowlineError] = {}
        self._draining = False

    @contextmanager
    def admit(self, caller_id: str) -> Generator[None]:
        """Counts a stream of the caller while it is open; raises LimitExceeded."""
        if self._open[caller_id] >= self._per_caller:
            refusal = LimitExceeded(f"more than {self._per_caller} streams are open")
            refusal.retry_seconds = _RETRY_SECONDS  # one of them may have ended
            raise refusal
        self._open[caller_id] += 1
        try:
            yield
        finally:
            self._open[caller_id] -= 1
            if not self._open[caller_id]:
                del self._open[caller_id]

    async def relay(self, caller_id: str, items: AsyncGenerator[Item]) -> AsyncGenerator[Item]:
        """Yields the items of a stream of the caller; raises LimitExceeded, what it is refused with, or Unavailable."""
        with self.admit(caller_id):
            async with aclosing(items):
                while (item := await self._next(items)) is not _END:
                    yield item

    def drain(self) -> None:
        """Ends all relayed streams with Unavailable and admits no more."""
        self._draining = True
        for task in self._waiting:
            task.cancel()

    def refuse(self, task: "asyncio.Task[Any]", error: TowlineError) -> None:
        """Ends the stream that a task relays, with the error, now or at its next item."""
        self._refused[task] = error
        if task in self._waiting:
            task.cancel()

    def check(self, task: "asyncio.Task[Any] | None") -> None:
        """Raises what a task has been refused with."""
        if task in self._refused:
            raise self._refused[task]

    def forget(self, task: "asyncio.Task[Any]") -> None:
        """Forgets that a task was refused."""
        self._refused.pop(task, None)

    async def _next(self, items: AsyncGenerator[Item]) -> Any:
        # Only a task that waits here may be cancelled: within gRPC's own write the call would end without a status.
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream runs in a task")
        if (reason := self._reason(task)) is not None:
            raise reason
        self._waiting.add(task)
        try:
            return await anext(items, _END)
        except asyncio.CancelledError:
            reason = self._reason(task)
            if reason is not None and task.uncancel() == 0:
                raise reason from None
            raise
        finally:
            self._waiting.discard(task)

    def _reason(self, task: "asyncio.Task[Any]") -> TowlineError | None:
        if self._draining:
            return Unavailable("the server is stopping; go on from the last cursor")
        return self._refused.get(task)
