"""The HTTP server of the process: uvicorn, run in place, with its signals and its start in our hands."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from towline_gateway.connections import HEAD_BYTES, KEEP_ALIVE_SECONDS, Connection

GRACE_SECONDS: Final = 10


def listen(host: str, port: int) -> socket.socket:
    """Binds the address; raises `OSError` when it is taken. Port 0 takes any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # Connections inherit it. Without it the body of each answer waits 40 ms for the acknowledgement of its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket) -> str:
    """The bound address as `host:port`."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Server(uvicorn.Server):
    """Serves one application; `stopping` is set first when it ends, so that open streams end too."""

    def __init__(self, app: ASGIApp, stopping: asyncio.Event, trusted_proxies: str = "") -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                h11_max_incomplete_event_size=HEAD_BYTES,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=trusted_proxies,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._stopping = stopping
        self.listening = asyncio.Event()

    def stop(self) -> None:
        """Ends the server: what runs is finished within the grace time, nothing new is taken."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen and says so."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends open streams, then the connections."""
        self._stopping.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leaves the signals to the process, which ends with exit code 0 on them."""
        yield


def announce(ready_file: Path, address: str) -> None:
    """Writes the ready file in one step: a reader sees all of it or none."""
    draft = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
    draft.write_text(json.dumps({"address": address}))
    draft.replace(ready_file)
