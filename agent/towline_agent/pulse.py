"""Makes the heartbeat beat: in a thread and over a connection of its own, no load in the event loop costs a lease."""

import asyncio
import threading
from typing import Protocol

import structlog

from towline_agent.control_plane import ControlPlaneError, LeaseRenewal
from towline_agent.heartbeat import Heartbeat

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Pulse(Protocol):
    """Makes the calls of one heartbeat and waits between them."""

    def start(self, heartbeat: Heartbeat) -> None:
        """Makes one Sync after the other until it is stopped or the heartbeat is; a defect ends the agent."""
        ...

    def wake(self) -> None:
        """Makes the next Sync happen now; for any thread."""
        ...

    async def stop(self) -> None:
        """Gives up the call under way; returns once nothing is sent any more."""
        ...


class ThreadPulse:
    """The pulse of an agent process; `tick` makes one Sync, `run` is the body of the thread."""

    def __init__(self, renewal: LeaseRenewal) -> None:
        self._renewal = renewal
        self._due = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, heartbeat: Heartbeat) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self.run, args=(heartbeat,), name="heartbeat", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Makes the next Sync happen now; for any thread."""
        self._due.set()

    async def stop(self) -> None:
        """Makes a call under way fail, and joins the thread; the heartbeat has been stopped."""
        self._due.set()
        self._renewal.close()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def run(self, heartbeat: Heartbeat) -> None:
        """Renews until the heartbeat is stopped."""
        try:
            while not heartbeat.stopped:
                self._due.wait(self.tick(heartbeat))
                self._due.clear()
        except Exception as error:
            log.exception("heartbeat_broken")
            heartbeat.broken(error)

    def tick(self, heartbeat: Heartbeat) -> float:
        """Makes one Sync and returns how long to wait before the next."""
        beat = heartbeat.begin()
        try:
            return heartbeat.conclude(beat, self._renewal.sync(beat.request, beat.timeout_seconds))
        except ControlPlaneError as error:
            return heartbeat.conclude(beat, error)
