"""What a canary is to attack: a process, files and sockets of this host that a plugin has no business with."""

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

MEMORY_BYTES = 256 * 1024 * 1024
"""Of a canary; its own /tmp holds as much."""

_TMP_BYTES = MEMORY_BYTES + 1

_DECOY = ("/bin/sleep", "60")


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(data, addr)


@asynccontextmanager
async def laid_out(uid: int | None) -> AsyncGenerator[dict[str, Any]]:
    """Lays it out for a canary of this user, and clears it away."""
    loop = asyncio.get_running_loop()
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="towline-bait-"))
    name = f"towline-bait-{secrets.token_hex(8)}"
    tcp = await asyncio.start_server(_hang_up, "127.0.0.1", 0)
    udp, _ = await loop.create_datagram_endpoint(_Echo, ("127.0.0.1", 0))
    abstract = await asyncio.start_unix_server(_hang_up, f"\0{name}")
    decoy = await asyncio.create_subprocess_exec(*_DECOY, stdin=asyncio.subprocess.DEVNULL, user=uid)
    try:
        yield {
            "agent": os.getpid(),
            "agentUid": os.getuid(),
            "pid": decoy.pid,
            "tcp": _port(tcp.sockets[0]),
            "udp": udp.get_extra_info("sockname")[1],
            "abstract": name,
            "file": str(_write(folder)),
            "folder": str(folder),
            "tmpBytes": _TMP_BYTES,
        }
    finally:
        decoy.kill()
        await decoy.wait()
        udp.close()
        for server in (tcp, abstract):
            server.close()
            await server.wait_closed()
        await asyncio.to_thread(shutil.rmtree, folder)


def _write(folder: Path) -> Path:
    folder.chmod(0o777)
    path = folder / "secret"
    path.write_text("bait")
    path.chmod(0o644)
    return path


def _port(listening: socket.socket) -> int:
    return listening.getsockname()[1]


async def _hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
