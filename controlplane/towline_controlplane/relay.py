"""Carries rings to the other replicas and brings in theirs; without it they find out by polling (I17).

Whoever rings only leaves a note: what gathers while a message is on its way goes out with the next one. A wire that is
down, slow or deaf is tried again and again, and after each gap everything rings once here, as something may have been
missed; what was rung here meanwhile goes out then.
"""

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import structlog

from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.calls import EVERYTHING, Message, PendingCalls, decode, encode

T = TypeVar("T")

OnChange: TypeAlias = Callable[[bool], Awaitable[None]]
"""Told whether rings of other replicas come in."""

_CANCEL_AGAIN_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


class WireDown(Exception):
    """The other replicas cannot be reached; the message says why and holds no secret."""


class Link(Protocol):
    """An open wire. What is sent reaches everybody who has one, the sender included."""

    async def send(self, text: str) -> None:
        """Returns once the text is with the server; raises WireDown."""
        ...

    async def receive(self) -> str:
        """Returns the next text; raises WireDown."""
        ...


class Wire(Protocol):
    """A way to the other replicas."""

    name: str
    most_bytes: int
    """Length of the longest text that it carries."""

    def connect(self) -> contextlib.AbstractAsyncContextManager[Link]:
        """Opens the wire; raises WireDown."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, and how long at most."""

    gap_seconds: float = 0.005
    """Between two messages: a busy replica says more at once instead of more often."""
    answer_seconds: float = 2.0
    """The server's time to take a text, and to return it."""
    echo_seconds: float = 5.0
    """Between two proofs that texts still come back."""
    first_delay_seconds: float = 0.1
    longest_delay_seconds: float = 5.0
    """Before a wire is tried again: doubled after each failure."""

    def delay_seconds(self, failures: int) -> float:
        """Returns the wait after so many failures in a row, jittered so that replicas do not come back as one."""
        delay = min(self.first_delay_seconds * 2 ** min(failures, 30), self.longest_delay_seconds)
        return delay * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing


class Alone:
    """The relay of a replica that has no others."""

    def carry(self, calls: Mapping[str, int]) -> None:
        """Does nothing: there is nobody to be told."""

    async def run(self, doorbell: InProcessDoorbell, on_change: OnChange) -> None:
        """Says that nothing is missed, and waits until it is cancelled."""
        await on_change(True)  # noqa: FBT003
        await asyncio.Event().wait()


class Relay:
    """One replica's end of the wire: `carry` takes what it rings, `run` does the talking."""

    def __init__(self, wire: Wire, pace: Pace | None = None) -> None:
        self._wire = wire
        self._pace = pace or Pace()
        self._id = secrets.token_hex(6)
        self._pending = PendingCalls()
        self._due = asyncio.Event()
        self._echo = asyncio.Event()
        self._up: bool | None = None

    def carry(self, calls: Mapping[str, int]) -> None:
        """Has the calls sent soon; never blocks, never fails, and holds a bounded number of them."""
        if calls:
            self._pending.add(calls)
            self._due.set()

    async def run(self, doorbell: InProcessDoorbell, on_change: OnChange) -> None:
        """Rings `doorbell` for others, and says when the wire comes up or goes down, until it is cancelled."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                reason = await _first_to_end(self._talk(doorbell, on_change))
            except Exception:
                log.exception("doorbell failed", wire=self._wire.name)
                reason = "a defect of the control plane"
            await self._change(on_change, up=False, reason=reason)
            if loop.time() - began > self._pace.longest_delay_seconds + self._pace.answer_seconds:
                failures = 0
            await asyncio.sleep(self._pace.delay_seconds(failures))
            failures += 1

    async def _talk(self, doorbell: InProcessDoorbell, on_change: OnChange) -> str:
        """Talks as long as it goes well; returns why it could not go on."""
        try:
            async with self._connected() as link:
                await _first_to_end(self._send(link), self._receive(link, doorbell), self._prove(doorbell, on_change))
        except WireDown as down:
            return str(down)
        except TimeoutError:
            return f"no answer within {self._pace.answer_seconds:g} s"
        return "closed"

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Link]:
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(self._pace.answer_seconds):
                link = await stack.enter_async_context(self._wire.connect())
            yield link

    async def _send(self, link: Link) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            calls = self._pending.take()
            try:
                for text in encode(Message(self._id, calls), self._wire.most_bytes):
                    async with asyncio.timeout(self._pace.answer_seconds):
                        await link.send(text)
            except BaseException:
                self.carry(calls)
                raise
            await asyncio.sleep(self._pace.gap_seconds)

    async def _receive(self, link: Link, doorbell: InProcessDoorbell) -> None:
        while True:
            message = decode(await link.receive())
            if message.sender == self._id:
                self._echo.set()
            elif EVERYTHING in message.calls:
                doorbell.hear_everything()
            else:
                doorbell.hear(message.calls)

    async def _prove(self, doorbell: InProcessDoorbell, on_change: OnChange) -> None:
        """Raises TimeoutError when texts do not come back any more: a dead wire may look like a silent one."""
        while True:
            self._echo.clear()
            self._due.set()
            async with asyncio.timeout(self._pace.answer_seconds):
                await self._echo.wait()
            if not self._up:
                doorbell.hear_everything()
                await self._change(on_change, up=True)
            await asyncio.sleep(self._pace.echo_seconds)

    async def _change(self, on_change: OnChange, *, up: bool, reason: str = "") -> None:
        if up is self._up:
            return
        self._up = up
        if up:
            log.info("doorbell connected", wire=self._wire.name)
        else:
            log.warning("doorbell down, other replicas find out by polling", wire=self._wire.name, reason=reason)
        await on_change(up)


async def _first_to_end(*duties: Coroutine[Any, Any, T]) -> T:
    """Returns or raises what the first duty does; ends the others before.

    A driver may swallow a cancellation that comes at the wrong moment (asyncio.wait_for does in Python 3.11), so it is
    repeated.
    """
    left = {asyncio.ensure_future(duty) for duty in duties}
    try:
        ended, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
    finally:
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_SECONDS)
    return ended.pop().result()


def explained(error: BaseException, secret: str | None) -> WireDown:
    """Returns what a driver's error means for a wire: one line, without the secret."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return WireDown((text.replace(secret, "***") if secret else text)[:300])
