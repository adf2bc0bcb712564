"""The network between agents, users and replicas: it loses, repeats, delays and reorders messages, and cuts agents off.

A call goes to any replica that lives. What is lost costs its sender the whole timeout; who dies hangs up, sooner or
later. A stream keeps its order and loses nothing but its end.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from google.protobuf.message import Message
from sim_trace import Trace
from virtual_loop import Process, VirtualLoop, context_of
from weather import Weather

from towline_controlplane.errors import TowlineError, Unavailable

_LONGEST_DELAY = 8.0
_HANG_UP_SECONDS = 6.0
_END = object()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: its name in the trace, the process that waits for the answer, and what it shows of itself."""

    name: str
    process: Process
    credential: str


class Server(Protocol):
    """What can be called."""

    name: str
    process: Process

    def serve(self, caller: Caller, method: str, request: Any) -> Coroutine[Any, Any, Any]:
        """Answers a call; raises TowlineError."""
        ...

    def serve_stream(
        self, caller: Caller, method: str, requests: Any, send: Callable[[Any], None]
    ) -> Coroutine[Any, Any, None]:
        """Serves a stream to its end; raises TowlineError."""
        ...


@dataclass(eq=False, slots=True)
class _Exchange:
    """One delivery of a request and what has become of it."""

    caller: Caller
    method: str
    fail: Callable[[Exception], None]
    server: Server | None = None
    serving: "asyncio.Task[Any] | None" = None


class Network:
    """Carries everything; `calm` once the storm is over."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, weather: Weather, trace: Trace) -> None:
        self.servers: list[Server] = []
        self.calm = False
        self.cut: set[str] = set()
        """Names of callers whose messages do not arrive, nor their answers."""
        self._loop = loop
        self._chance = chance
        self._weather = weather
        self._trace = trace
        self._exchanges: dict[_Exchange, None] = {}

    async def call(self, caller: Caller, method: str, request: Message, seconds: float) -> Any:
        """Returns the answer; raises TowlineError, Unavailable if there is none within `seconds`."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        exchanges = [self._send(caller, method, request, partial(_settle, answer))]
        if self._happens(self._weather.duplicate):
            self._trace.note("network", f"repeats {method} of {caller.name}")
            exchanges.append(self._send(caller, method, request, None))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise Unavailable(f"no answer within {seconds:g} s") from None
        finally:
            self._later(self._delay(), self._hang_up, exchanges[0])

    async def stream(self, caller: Caller, method: str, requests: AsyncIterator[Message]) -> AsyncIterator[Any]:
        """Yields the answers of a stream; raises TowlineError when it breaks."""
        up, down = Pipe(self), Pipe(self)
        exchange = _Exchange(caller, method, down.fail)
        self._exchanges[exchange] = None
        pumping = asyncio.create_task(self._pump(exchange, requests, up, down))
        self._later(self._delay(), self._open, exchange, up, down)
        try:
            async for response in down:
                yield response
        finally:
            pumping.cancel()
            self._later(self._delay(), self._hang_up, exchange)

    def died(self, process: Process) -> None:
        """The connections of a process break: at once, or when somebody notices."""
        for exchange in [each for each in self._exchanges if each.server and each.server.process is process]:
            self._later(self._notice(), self._fail, exchange, Unavailable("the connection was lost"))
        for exchange in [each for each in self._exchanges if each.caller.process is process]:
            self._later(self._notice(), self._hang_up, exchange)

    def delay(self) -> float:
        """Draws how long a message takes."""
        return self._delay()

    def breaks(self, caller: Caller) -> bool:
        """Draws whether a stream breaks at this message."""
        return self._is_cut(caller) or self._happens(self._weather.break_stream)

    def later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Calls back, whoever has died meanwhile."""
        self._later(seconds, callback, *args)

    def _send(
        self, caller: Caller, method: str, request: Message, settle: Callable[[Any, Exception | None], None] | None
    ) -> _Exchange:
        def fail(error: Exception) -> None:
            if settle is not None:
                settle(None, error)

        exchange = _Exchange(caller, method, fail)
        if self._lost(caller):
            self._trace.note("network", f"loses {method} of {caller.name}")
            return exchange
        self._exchanges[exchange] = None
        copy = type(request).FromString(request.SerializeToString())
        extra = self._chance.uniform(0, _LONGEST_DELAY) if settle is None else 0.0
        self._later(self._delay() + extra, self._arrive, exchange, copy, settle)
        return exchange

    def _arrive(
        self, exchange: _Exchange, request: Message, settle: Callable[[Any, Exception | None], None] | None
    ) -> None:
        server = self._pick()
        if server is None or exchange not in self._exchanges:
            self._later(self._delay(), self._fail, exchange, Unavailable("nobody listens"))
            return
        exchange.server = server
        exchange.serving = self._loop.spawn(server.process, server.serve(exchange.caller, exchange.method, request))
        served = partial(self._served, exchange, settle)
        exchange.serving.add_done_callback(served, context=context_of(self._loop.world))

    def _served(
        self,
        exchange: _Exchange,
        settle: Callable[[Any, Exception | None], None] | None,
        serving: "asyncio.Task[Any]",
    ) -> None:
        self._exchanges.pop(exchange, None)
        if serving.cancelled():
            return
        error = serving.exception()
        if settle is None:
            return
        if self._lost(exchange.caller):
            self._trace.note("network", f"loses the answer to {exchange.method} of {exchange.caller.name}")
            return
        self._later(self._delay(), settle, None if error else serving.result(), error)

    def _open(self, exchange: _Exchange, up: "Pipe", down: "Pipe") -> None:
        server = self._pick()
        if server is None or exchange not in self._exchanges or self._is_cut(exchange.caller):
            self._later(self._delay(), self._fail, exchange, Unavailable("nobody listens"))
            return
        exchange.server = server
        send = partial(self._respond, exchange, down)
        exchange.serving = self._loop.spawn(
            server.process, server.serve_stream(exchange.caller, exchange.method, up, send)
        )
        ended = partial(self._stream_ended, exchange, down)
        exchange.serving.add_done_callback(ended, context=context_of(self._loop.world))

    def _respond(self, exchange: _Exchange, down: "Pipe", response: Any) -> None:
        if self.breaks(exchange.caller):
            self._break(exchange)
        elif exchange in self._exchanges:
            down.send(response)

    async def _pump(self, exchange: _Exchange, requests: AsyncIterator[Message], up: "Pipe", down: "Pipe") -> None:
        async for request in requests:
            if self.breaks(exchange.caller):
                self._break(exchange)
                return
            up.send(type(request).FromString(request.SerializeToString()))
        up.send(_END)

    def _break(self, exchange: _Exchange) -> None:
        """Nothing of the stream arrives any more; both sides find out."""
        if exchange in self._exchanges:
            self._trace.note("network", f"breaks {exchange.method} of {exchange.caller.name}")
            self._later(self._notice(), self._fail, exchange, Unavailable("the stream broke"))
            self._later(self._notice(), self._hang_up, exchange)

    def _stream_ended(self, exchange: _Exchange, down: "Pipe", serving: "asyncio.Task[None]") -> None:
        self._exchanges.pop(exchange, None)
        if not serving.cancelled():
            error = serving.exception()
            down.send(_END if error is None else error)

    def _fail(self, exchange: _Exchange, error: Exception) -> None:
        self._exchanges.pop(exchange, None)
        exchange.fail(error)

    def _hang_up(self, exchange: _Exchange) -> None:
        self._exchanges.pop(exchange, None)
        if exchange.serving is not None:
            exchange.serving.cancel()

    def _pick(self) -> Server | None:
        listening = [server for server in self.servers if server.process.alive]
        return self._chance.choice(listening) if listening else None

    def _lost(self, caller: Caller) -> bool:
        return self._is_cut(caller) or self._happens(self._weather.drop)

    def _is_cut(self, caller: Caller) -> bool:
        return not self.calm and caller.name in self.cut

    def _happens(self, probability: float) -> bool:
        return not self.calm and probability > 0 and self._chance.random() < probability

    def _delay(self) -> float:
        if self.calm:
            return 0.001
        return min(self._chance.expovariate(1 / self._weather.latency), _LONGEST_DELAY)

    def _notice(self) -> float:
        return self._delay() if self.calm or self._chance.random() < 0.7 else _HANG_UP_SECONDS

    def _later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_later(seconds, callback, *args, context=context_of(self._loop.world))


@dataclass(eq=False)
class Pipe:
    """One direction of a stream."""

    network: Network
    _waiting: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue[Any])
    _last: float = 0.0

    def send(self, item: Any) -> None:
        """Delivers an item after those before it."""
        now = asyncio.get_running_loop().time()
        self._last = max(self._last, now + self.network.delay())
        self.network.later(self._last - now, self._waiting.put_nowait, item)

    def fail(self, error: Exception) -> None:
        """Ends it now, whatever is on its way."""
        self._waiting.put_nowait(error)

    def __aiter__(self) -> "Pipe":
        return self

    async def __anext__(self) -> Any:
        item = await self._waiting.get()
        if item is _END:
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            raise item
        return item


def _settle(answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


__all__ = ["Caller", "Network", "Server", "TowlineError"]
