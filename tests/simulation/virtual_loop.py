"""An event loop in which time is a number and processes can be killed between any two of their steps.

Time stands still while anything is ready and then jumps to the next timer. Every callback belongs to the *process*
whose code scheduled it. Each process keeps the order of its own callbacks, as an event loop does; which process goes
next is drawn by the seed. A killed process is frozen where it is: no line of it runs any more, not even a `finally`.
Executors work in place, after a drawn delay and with another one before their answer is seen.
"""

import asyncio
import contextvars
import heapq
import itertools
import random
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

_STEPS_TO_BURY = 100_000


class NothingLeft(Exception):
    """Everybody waits for somebody else, and no timer runs."""


@dataclass(eq=False, slots=True)
class Process:
    """Something that runs and can be killed as a whole."""

    name: str
    alive: bool = True
    ready: "deque[Handle]" = field(default_factory=deque["Handle"])
    frozen: "list[Handle]" = field(default_factory=list["Handle"])
    """What would have gone on if it had not been killed."""


_process: contextvars.ContextVar[Process] = contextvars.ContextVar("simulated_process")


def context_of(process: Process) -> contextvars.Context:
    """Returns a context in which everything belongs to `process`."""
    context = contextvars.Context()
    context.run(_process.set, process)
    return context


class Handle(asyncio.TimerHandle):
    """A callback to come."""

    __slots__ = ("_call", "_in", "process")

    def __init__(
        self,
        when: float,
        call: tuple[Callable[..., object], tuple[Any, ...]],
        loop: "VirtualLoop",
        context: contextvars.Context | None,
    ) -> None:
        self._call = call
        self._in = context or contextvars.copy_context()
        self.process = self._in.get(_process, loop.world)
        super().__init__(when, call[0], call[1], loop, self._in)

    def run(self) -> None:
        """Calls it."""
        callback, args = self._call
        self._in.run(callback, *args)


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set depends on when it was made, never on where in memory."""

    def __init__(self, number: int, coroutine: Any, loop: "VirtualLoop", context: contextvars.Context | None) -> None:
        self.number = number
        within = context or contextvars.copy_context()
        self.process = within.get(_process, loop.world)
        super().__init__(coroutine, loop=loop, name=f"task-{number}", context=within)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs what is ready, one callback at a time; see above."""

    def __init__(self, chance: random.Random) -> None:
        self.world = Process("world")
        """Whom everything belongs to that no process began: the network, the faults, the simulation itself."""
        self.defects: list[str] = []
        """What no code has caught."""
        self.before_step: Callable[[Process], None] = lambda process: None
        self.after_work: Callable[[Process], None] = lambda process: None
        """Called after each piece of work of an executor."""
        self.pace: Callable[[Process], tuple[float, float]] = lambda process: (0.0, 0.0)
        """Draws how long an executor waits before its work, and before its answer is seen."""
        self.before_burial: Callable[[], None] = lambda: None
        """Called when the simulation is over and all that is left is being ended."""
        self._chance = chance
        self._now = 0.0
        self._timers: list[tuple[float, int, Handle]] = []
        self._busy: list[Process] = []
        self._numbers = itertools.count()
        self._tasks: dict[int, NumberedTask] = {}
        self._burying = False

    # What the simulation calls

    def run(self, main: Coroutine[Any, Any, T]) -> T | None:
        """Runs until `main` is over or a defect is found, then ends everything else; the result if there was none."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=lambda generator: None, finalizer=self._finalize)
        asyncio._set_running_loop(self)  # pyright: ignore[reportPrivateUsage] - meant for the authors of loops
        try:
            task = self.create_task(main, context=context_of(self.world))
            try:
                while not task.done() and not self.defects:
                    self._step()
            finally:
                found = list(self.defects)
                self._bury()
                self.defects[:] = found
            return None if found else task.result()
        finally:
            asyncio._set_running_loop(None)  # pyright: ignore[reportPrivateUsage]
            sys.set_asyncgen_hooks(*hooks)

    def spawn(self, process: Process, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Starts a task in a process, in a context that nothing has been put into."""
        return self.create_task(coroutine, context=context_of(process))

    def current_process(self) -> Process:
        """Returns the process whose code runs."""
        return _process.get(self.world)

    def kill(self, process: Process) -> None:
        """Freezes a process for good."""
        process.alive = False
        process.frozen.extend(process.ready)
        process.ready.clear()

    # What asyncio calls

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """Runs a callback after those that its process has waiting."""
        handle = Handle(self._now, (callback, args), self, context)
        self._enqueue(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """The same: there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """Runs a callback in `delay` seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """Runs a callback at a time."""
        handle = Handle(when, (callback, args), self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        """Returns a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> "asyncio.Task[T]":
        """Starts a task in the process of its context."""
        number = next(self._numbers)
        task = NumberedTask(number, coro, self, context)
        # Kept while it is not over: a task that is collected would run the end of its coroutine.
        self._tasks[number] = task
        if len(self._tasks) % 256 == 0:
            self._tasks = {number: task for number, task in self._tasks.items() if not task.done()}
        return task

    def run_in_executor(self, executor: object, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Does the work in place, some time later; its process may be killed before and after it."""
        answer: asyncio.Future[T] = self.create_future()
        process = self.current_process()
        before, after = (0.0, 0.0) if self._burying else self.pace(process)

        def settle(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)  # pyright: ignore[reportArgumentType] - the result of `func`
            else:
                answer.set_exception(error)

        def work() -> None:
            try:
                result, error = func(*args), None
            except Exception as problem:  # noqa: BLE001 - the answer of the executor
                result, error = None, problem
            if not self._burying:
                self.after_work(process)
            self.call_later(after, settle, result, error)

        self.call_later(before, work)
        return answer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Remembers a defect."""
        if not self._burying:
            self.defects.append(f"{context.get('message')}: {context.get('exception')!r}")

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """Always, as far as anybody can ask."""
        return True

    def is_closed(self) -> bool:
        """Never."""
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are passed over when their time comes."""

    # The machine

    def _enqueue(self, handle: Handle) -> None:
        process = handle.process
        if not process.alive:
            process.frozen.append(handle)
            return
        if not process.ready:
            self._busy.append(process)
        process.ready.append(handle)

    def _step(self) -> None:
        if not self._busy:
            self._advance()
            return
        index = self._chance.randrange(len(self._busy)) if len(self._busy) > 1 else 0
        process = self._busy[index]
        if process.alive and not self._burying:
            self.before_step(process)
        if not process.ready:  # killed
            del self._busy[index]
            return
        handle = process.ready.popleft()
        if not process.ready:
            del self._busy[index]
        if not handle.cancelled():
            handle.run()

    def _advance(self) -> None:
        while self._timers:
            when, _, handle = heapq.heappop(self._timers)
            if handle.cancelled():
                continue
            if handle.process.alive:
                self._now = max(self._now, when)
            self._enqueue(handle)
            return
        raise NothingLeft

    def _bury(self) -> None:
        """Ends all tasks, the frozen ones too, so that nothing of this loop is left to run later."""
        self._burying = True
        self.before_burial()
        unfinished: list[NumberedTask] = []
        for _ in range(_STEPS_TO_BURY):
            unfinished = [task for task in self._tasks.values() if not task.done()]
            if not unfinished:
                return
            for task in unfinished:
                self._thaw(task.process)
                task.cancel()
            while self._busy:
                self._step()
            if not any(not task.done() for task in unfinished):
                continue
            try:
                self._advance()
            except NothingLeft:
                continue
        raise RuntimeError(f"tasks that do not end: {unfinished[:3]}")

    def _thaw(self, process: Process) -> None:
        process.alive = True
        frozen, process.frozen = process.frozen, []
        for handle in frozen:
            self._enqueue(handle)

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self.current_process().alive:
            self.create_task(generator.aclose())
