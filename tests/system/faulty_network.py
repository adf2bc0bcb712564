"""A network that a scenario can disturb: one TCP proxy for each link from a client to a server.

It runs in a thread of its own, so that a scenario may block while others go on talking.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")
_BLOCK = 64 * 1024


class Way(Enum):
    """A direction of a link."""

    UP = "from the client to the server"
    DOWN = "from the server to the client"


BOTH = (Way.UP, Way.DOWN)


@dataclass(slots=True, eq=False)
class Link:
    """The way from one client to one server. What a dropping link has taken it delivers late, as TCP does."""

    server: str
    _run: Callable[[Coroutine[Any, Any, None]], None]
    address: str = ""
    _flows: dict[Way, asyncio.Event] = field(default_factory=dict[Way, asyncio.Event])
    _writers: dict[Way, set[asyncio.StreamWriter]] = field(default_factory=dict[Way, set[asyncio.StreamWriter]])
    _pumps: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _connections: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _listener: asyncio.Server | None = None

    def drop(self, *ways: Way) -> None:
        """Lets nothing through: no bytes, no end of a connection, no refusal; both ways unless told."""
        self._do(lambda: [self._flows[way].clear() for way in ways or BOTH])

    def heal(self, *ways: Way) -> None:
        """Lets everything through again, the oldest first; connections that outlived the fault go on."""

        async def heal() -> None:
            if self._listener is None:
                await self._listen()
            for way in ways or BOTH:
                self._flows[way].set()

        self._run(heal())

    def cut(self) -> None:
        """Resets every connection; new ones are served."""
        self._do(self._reset)

    def refuse(self) -> None:
        """Resets every connection and refuses new ones."""

        async def refuse() -> None:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            self._reset()

        self._run(refuse())

    def close(self) -> None:
        """Ends the link and everything on it."""

        async def close() -> None:
            while self._connections:
                self._reset()
                await asyncio.wait(self._connections)

        self.refuse()
        self._run(close())

    def half_close(self, way: Way) -> None:
        """Ends one direction of every connection, as a peer does that has nothing more to say."""

        def half_close() -> None:
            for writer in self._writers[way]:
                with contextlib.suppress(OSError):
                    writer.write_eof()

        self._do(half_close)

    def open(self) -> None:
        """Listens; called once."""
        self._run(self._listen())

    def _do(self, change: Callable[[], object]) -> None:
        async def do() -> None:
            change()

        self._run(do())

    async def _listen(self) -> None:
        if not self._flows:
            for way in BOTH:
                self._flows[way] = asyncio.Event()
                self._flows[way].set()
                self._writers[way] = set()
        host, _, port = self.address.rpartition(":")
        self._listener = await asyncio.start_server(self._connected, host or "127.0.0.1", int(port or 0))
        host, port = self._listener.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._relay(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.server.rpartition(":")
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await _end(writer)
            return
        pumps = {
            asyncio.create_task(self._pump(way, source, sink))
            for way, source, sink in ((Way.UP, reader, far_writer), (Way.DOWN, far_reader, writer))
        }
        self._pumps |= pumps
        await asyncio.wait(pumps)
        self._pumps -= pumps
        for each in (writer, far_writer):
            await _end(each)

    async def _pump(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self._writers[way].add(sink)
        try:
            while data := await source.read(_BLOCK):
                await self._flows[way].wait()
                sink.write(data)
                await sink.drain()
            await self._flows[way].wait()
            sink.write_eof()
        except OSError:
            await self._flows[way].wait()
            _abort(sink)
        finally:
            self._writers[way].discard(sink)

    def _reset(self) -> None:
        for writers in self._writers.values():
            for writer in list(writers):
                _abort(writer)
        for pump in self._pumps:
            pump.cancel()


class Network:
    """All links of an installation."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self._links: dict[tuple[str, str], Link] = {}

    def link(self, client: str, server: str, address: str) -> Link:
        """Returns the link from a client to a server, which listens at the address."""
        link = self._links.get((client, server))
        if link is None:
            link = self._links[client, server] = Link(address, self._run)
            link.open()
        return link

    def links_of(self, client: str) -> list[Link]:
        """Returns the links of a client to all servers."""
        return [link for (name, _), link in self._links.items() if name == client]

    def close(self) -> None:
        """Ends all links."""
        for link in self._links.values():
            link.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, change: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(change, self._loop).result(10)


@contextlib.contextmanager
def network() -> Generator[Network]:
    """Yields a network, and ends it."""
    opened = Network()
    try:
        yield opened
    finally:
        opened.close()


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _abort(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
