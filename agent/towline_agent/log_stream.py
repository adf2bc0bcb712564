"""Sends the logs of all attempts over one stream, each from where the control plane wants it, until it has them whole.

One chunk per attempt is in flight: what is written meanwhile makes the next one larger, memory stays bounded, and an
answer that jumps back or ahead needs no bookkeeping. It loses its race when the stream breaks: then every log goes on
from its last answered offset. A quiet log waits a moment, so that a short step's log and its end travel together.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from towline.v1.agent_service_pb2 import AppendLogsRequest, AppendLogsResponse
from towline_agent.clock import Backoff, Clock, Signal
from towline_agent.control_plane import ControlPlane, ControlPlaneError, Unavailable
from towline_agent.holdings import lease_key
from towline_agent.log_spool import LogFile
from towline_agent.session import Session

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

MAX_CHUNK = 256 * 1024
GATHER_SECONDS = 0.02
STALLED_SECONDS = 1.0
"""Wait after an answer that brings a log no further."""


@dataclass(slots=True, eq=False)
class Tail:
    """How far one log has come."""

    file: LogFile
    acked: int = 0
    in_flight: bool = False
    finished: bool = False
    final_sent: bool = False
    not_before: float = 0.0
    due_at: float | None = None
    """When to send next; None while there is nothing to send."""


class LogStream:
    """The logs that are not wholly with the control plane; `emptied` is called when the last one is."""

    def __init__(self, control_plane: ControlPlane, session: Session, clock: Clock) -> None:
        self.emptied: Callable[[], None] = lambda: None
        self._control_plane = control_plane
        self._session = session
        self._clock = clock
        self._backoff = Backoff(clock.jitter)
        self._tails: dict[str, Tail] = {}
        self._wake = Signal(clock)

    def __len__(self) -> int:
        return len(self._tails)

    def follow(self, file: LogFile) -> None:
        """Sends a log while it grows; costs nothing before its first byte."""
        file.grew = partial(self._grew, Tail(file))

    def finish(self, file: LogFile) -> None:
        """Sends the rest of a log, and that nothing follows."""
        if file.size == 0:
            return
        tail = self._tails.setdefault(file.key, Tail(file))
        tail.finished = True
        self._schedule(tail, self._clock.monotonic())

    def forget(self, file: LogFile) -> None:
        """Stops sending a log and removes it."""
        self._tails.pop(file.key, None)
        file.delete()
        if not self._tails:
            self.emptied()

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            await self.tick()

    async def tick(self) -> None:
        """Opens a stream once there is something to send, and keeps it for as long as it lives."""
        while all(tail.due_at is None for tail in self._tails.values()):
            await self._wake.wait()
        await self._session.opened()
        wake = self._wake
        try:
            async for response in self._control_plane.append_logs(self._requests(wake)):
                self._backoff.reset()
                self._answered(response)
            raise Unavailable("the control plane ended the log stream")
        except ControlPlaneError as error:
            self._rewind(wake)
            await self._session.recover(error, self._backoff)

    async def _requests(self, wake: Signal) -> AsyncIterator[AppendLogsRequest]:
        # The transport may go on asking after the stream has broken; by then the signal is another one.
        while self._wake is wake:
            now = self._clock.monotonic()
            tail = min(self._tails.values(), key=_due, default=None)
            if tail is not None and _due(tail) <= now:
                yield self._chunk(tail)
            else:
                await wake.wait(None if tail is None or tail.due_at is None else tail.due_at - now)

    def _chunk(self, tail: Tail) -> AppendLogsRequest:
        data = tail.file.read(tail.acked, MAX_CHUNK)
        tail.in_flight, tail.due_at = True, None
        tail.final_sent = tail.finished and tail.acked + len(data) == tail.file.size
        return AppendLogsRequest(lease=tail.file.lease, offset=tail.acked, data=data, final=tail.final_sent)

    def _answered(self, response: AppendLogsResponse) -> None:
        tail = self._tails.get(lease_key(response.lease))
        if tail is None:
            return
        if response.lease_lost:
            log.warning("log_discarded", run=response.lease.run_id, node=response.lease.node_id, reason="lease lost")
            self.forget(tail.file)
            return
        before, tail.acked = tail.acked, max(0, min(response.next_offset, tail.file.size))
        tail.in_flight = False
        if tail.final_sent and tail.acked == tail.file.size:
            self.forget(tail.file)
            return
        now = self._clock.monotonic()
        interval = response.interval.ToTimedelta().total_seconds()
        tail.not_before = now + (interval if tail.acked > before else max(interval, STALLED_SECONDS))
        if tail.finished or tail.acked < tail.file.size:
            self._schedule(tail, now if tail.finished and tail.acked > before else tail.not_before)

    def _grew(self, tail: Tail) -> None:
        self._tails.setdefault(tail.file.key, tail)
        if not tail.in_flight and tail.due_at is None:
            self._schedule(tail, max(tail.not_before, self._clock.monotonic() + GATHER_SECONDS))

    def _schedule(self, tail: Tail, due_at: float) -> None:
        if not tail.in_flight:
            tail.due_at = due_at
            self._wake.set()

    def _rewind(self, wake: Signal) -> None:
        self._wake = Signal(self._clock)
        wake.set()
        now = self._clock.monotonic()
        for tail in self._tails.values():
            tail.in_flight = tail.final_sent = False
            if tail.finished or tail.acked < tail.file.size:
                tail.due_at = now


def _due(tail: Tail) -> float:
    return float("inf") if tail.due_at is None else tail.due_at
