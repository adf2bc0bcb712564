"""The session of this process with the control plane: whether work may be asked for and results sent, right now.

The heartbeat tells it what became of each Sync, through the event loop; all other loops ask it. It is shut
before the first accepted Sync, after SESSION_UNKNOWN, and while the leases have run out.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from towline.v1.agent_service_pb2 import Directive
from towline_agent.clock import Backoff, Clock, Signal
from towline_agent.control_plane import AgentMustStop, ControlPlaneError, SessionUnknown


@dataclass(frozen=True, slots=True)
class Renewed:
    """A Sync was accepted."""

    confirmed: frozenset[str]
    """Keys of the attempts that it named."""
    directives: tuple[Directive, ...]
    server_version: str = ""


@dataclass(frozen=True, slots=True)
class Fenced:
    """No Sync was accepted for so long that the leases must be taken for lost."""


@dataclass(frozen=True, slots=True)
class Ended:
    """This process cannot go on: it has lost its place, or its leases are not renewed any more."""

    error: Exception


Notice = Renewed | Fenced | Ended


class Session:
    """State of the session and the waits that depend on it."""

    def __init__(self, clock: Clock, introduce: Callable[[], None]) -> None:
        self.id = clock.new_id()
        self._clock = clock
        self._introduce = introduce
        self._open = asyncio.Event()
        self._pauses: dict[Signal, None] = {}

    @property
    def is_open(self) -> bool:
        """Whether the control plane knows us and our leases hold."""
        return self._open.is_set()

    async def opened(self) -> None:
        """Returns at once while the session is open, else when it opens."""
        await self._open.wait()

    def renewed(self) -> None:
        """Opens the session and ends every pause: what failed may work again."""
        self._open.set()
        for pause in self._pauses:
            pause.set()

    def shut(self) -> None:
        """Stops work from being asked for until the next accepted Sync."""
        self._open.clear()

    async def recover(self, error: ControlPlaneError, backoff: Backoff) -> None:
        """Returns when the failed call is worth repeating; raises the error if it never will be."""
        if isinstance(error, AgentMustStop):
            raise error
        if isinstance(error, SessionUnknown):
            self.shut()
            self._introduce()
        await self.pause(backoff.next())

    async def pause(self, seconds: float) -> None:
        """Waits before a repetition: for `seconds`, or until a Sync is accepted."""
        signal = Signal(self._clock)
        self._pauses[signal] = None
        try:
            await signal.wait(seconds)
        finally:
            del self._pauses[signal]
