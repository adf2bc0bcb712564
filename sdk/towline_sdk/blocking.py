"""The client for programs without an event loop: the calls of `Client`, each of which returns when it is done.

    with BlockingClient(address, token) as client:
        for event in client.runs.start(workflow_id).watch():
            …

One background thread runs the one implementation there is; nothing is written twice. The types are in `blocking.pyi`,
which is generated from the calls of `Client`.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from towline_sdk.client import DEADLINE_SECONDS, Client
from towline_sdk.run_calls import StartedRun

ResultT = TypeVar("ResultT")


class BlockingClient:
    """A connection to one control plane, as `Client`; use it as `with BlockingClient(address, token) as client`."""

    def __init__(
        self,
        address: str,
        token: str = "",
        *,
        ca_file: Path | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        async def connect() -> Client:
            return Client(address, token, ca_file=ca_file, deadline_seconds=deadline_seconds)

        self._loop = _LoopThread()
        try:
            self._client = self._loop.result_of(connect())
        except BaseException:
            self._loop.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return _Blocking(getattr(self._client, name), self._loop)

    def close(self) -> None:
        """Ends the connection, every call on it and the thread. Idempotent."""
        if self._loop.is_running:
            self._loop.result_of(self._client.close())
            self._loop.stop()


class _Blocking:
    """Stands for an object whose methods are asynchronous."""

    def __init__(self, target: object, loop: "_LoopThread") -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._target, name)
        return self._blocking(member) if callable(member) else member

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            answer = method(*args, **options)
            if isinstance(answer, AsyncIterator):
                return self._loop.items_of(cast("AsyncIterator[Any]", answer))
            done = self._loop.result_of(answer) if inspect.isawaitable(answer) else answer
            return _Blocking(done, self._loop) if isinstance(done, StartedRun) else done

        return call


class _LoopThread:
    """An event loop on a thread of its own, which ends with the process if nobody stops it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="towline-client", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it takes calls."""
        return self._thread.is_alive()

    def result_of(self, work: Awaitable[ResultT]) -> ResultT:
        """Returns what comes of the work; whoever is interrupted while waiting cancels it."""
        if not self.is_running:
            if inspect.iscoroutine(work):
                work.close()
            raise RuntimeError("the client is closed")
        future: Future[ResultT] = asyncio.run_coroutine_threadsafe(_awaited(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def items_of(self, items: AsyncIterator[ResultT]) -> Iterator[ResultT]:
        """Yields the items as they come; who leaves early ends the call behind them."""
        try:
            while found := self.result_of(_next(items)):
                yield found[0]
        finally:
            if self.is_running and inspect.isasyncgen(items):
                self.result_of(items.aclose())

    def stop(self) -> None:
        """Ends the loop and waits for its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _awaited(work: Awaitable[ResultT]) -> ResultT:
    return await work


async def _next(items: AsyncIterator[ResultT]) -> tuple[ResultT] | None:
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None
