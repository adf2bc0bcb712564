"""One HTTP/1.1 connection: uvicorn's, with bounds on what a slow client may hold.

| it waits for | at most |
| --- | --- |
| the head of a request, from its first byte or the start of the connection | `HEAD_SECONDS` |
| the next request, while nothing comes | `KEEP_ALIVE_SECONDS` |
| the rest of a body that was answered without being read | `LINGER_SECONDS`, then it is closed |
| a client that does not read its answer | `STALL_SECONDS` without any progress |

How long a body may take is decided where it is read (`bodies`). What is no HTTP is refused with the body of all errors,
and so is a connection more than the process has files for: one that could not be accepted would spin.
"""

import asyncio
import resource
import uuid
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from towline_gateway import problems
from towline_gateway.bodies import JSON
from towline_gateway.codec import render

MAX_CONNECTIONS: Final = 10_000
HEAD_BYTES: Final = 32 * 1024
HEAD_SECONDS: Final = 20
KEEP_ALIVE_SECONDS: Final = 75
LINGER_SECONDS: Final = 5
STALL_SECONDS: Final = 60
_OWN_FILES: Final = 100


def most_connections() -> int:
    """How many connections there may be: as many as the process may open files, but for some of its own."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, files - _OWN_FILES)


class Connection(H11Protocol):
    """Closes itself when its client takes too long."""

    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begins to wait for a request."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, transport.abort)
        if len(self.connections) > most_connections():
            self._refuse(problems.unavailable("The gateway has too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends every wait."""
        for timer in (self._head_timer, self._linger_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what arrived; a head that is not whole yet must be so in time."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Goes on with the next request, if the client has sent this one to its end."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.DONE and self.conn.their_state is not h11.DONE:
            self._linger_timer = self._linger_timer or self.loop.call_later(LINGER_SECONDS, self.transport.close)
        self._watch_head()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read most of what was waiting for it."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no request, in the form of all errors; then the connection is closed."""
        too_large = len(self.conn.trailing_data[0]) >= HEAD_BYTES
        self._refuse(problems.head_too_large(HEAD_BYTES) if too_large else problems.invalid(msg))

    def _refuse(self, problem: problems.Problem) -> None:
        """Answers outside of any request, and closes."""
        body = render(problem.body(str(uuid.uuid4())))
        own = [("Content-Type", JSON), ("Content-Length", str(len(body))), ("Connection", "close")]
        events: list[Any] = [
            h11.Response(status_code=problem.code, headers=[*own, *problem.headers]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            if self.conn.our_state is h11.SEND_RESPONSE:  # who reads the body learns that its client is gone
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            for event in events:
                self.transport.write(cast("bytes", self.conn.send(event) or b""))
        self.transport.close()

    def _watch_head(self) -> None:
        """Lets the time for a head run while there is a part of one, and only then."""
        waits = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if self._linger_timer is not None and self.conn.their_state in {h11.IDLE, h11.DONE}:
            self._linger_timer.cancel()
            self._linger_timer = None
        if not waits or not self.conn.trailing_data[0]:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
