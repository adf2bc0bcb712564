"""Composition root of the gateway: settings, channel, application, server. Run as `python -m towline_gateway`."""

import asyncio
import resource
import signal
import sys

import structlog
from pydantic import ValidationError

from towline_gateway import logs
from towline_gateway.app import build_app
from towline_gateway.control_plane import connect
from towline_gateway.cors import parse_origins
from towline_gateway.server import Server, address_of, announce, listen
from towline_gateway.settings import Settings
from towline_sdk import failover

_log = structlog.stdlib.get_logger("towline_gateway")


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then ends cleanly; raises `OSError` when the address is taken."""
    listener = listen(settings.host, settings.port)
    stopping = asyncio.Event()
    channel = connect(settings.server)
    server = Server(
        build_app(channel, stopping, parse_origins(settings.cors_origins)), stopping, settings.trusted_proxies
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.stop)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve([listener]))
            await server.listening.wait()
            await failover.connected(channel)
            _log.info("listening", address=address_of(listener), server=settings.server)
            if settings.ready_file:
                announce(settings.ready_file, address_of(listener))
    finally:
        await channel.close()
    _log.info("stopped")


def main() -> int:
    """Runs the process; returns its exit code: 1 when the address is taken, 2 when a setting is wrong."""
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue] - all fields come from the environment or a default
    except ValidationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logs.configure(settings.log_level)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its memory holds passwords and secrets on their way
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # each connection is one
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        _log.error("cannot listen", host=settings.host, port=settings.port, reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
