"""The command `towline up`: an installation on embedded defaults that stays until it is told to stop."""

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from towline_cli.child_settings import Places
from towline_cli.installation import Installation, Running

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", envvar="TOWLINE_DATA_DIR", help="Everything is kept here.")
    ] = Path(".towline"),
    http_port: Annotated[
        int, typer.Option("--http-port", envvar="HTTP_PORT", min=0, max=65535, help="REST; 0: any free port.")
    ] = 3000,
    grpc_port: Annotated[
        int, typer.Option("--grpc-port", envvar="GRPC_PORT", min=0, max=65535, help="gRPC; 0: any free port.")
    ] = 50051,
    slots: Annotated[int | None, typer.Option("--slots", min=1, help="Attempts at the same time.")] = None,
    show_login: Annotated[bool, typer.Option("--show-login", help="Show the admin's login again.")] = False,
) -> None:
    """Run control plane, gateway and agent on this machine until Ctrl-C."""
    asyncio.run(_stay_up(Places(data_dir, http_port, grpc_port, slots), show_login=show_login))


async def _stay_up(places: Places, *, show_login: bool) -> None:
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    installation = Installation(places)

    async def live() -> None:
        running = await installation.start()
        print(_welcome(running, places, show_login=show_login or running.is_first_start), flush=True)
        await installation.watch()

    try:
        await _unless(stop, live())
    finally:
        if stop.is_set():
            print("stopping …", flush=True)
        await installation.stop()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Runs the work until it is done or the stop comes; what it raises is raised here."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


def _welcome(running: Running, places: Places, *, show_login: bool) -> str:
    lines = [
        "Towline is up. Ctrl-C stops it.",
        f"  REST              http://{running.http}/api (described at http://{running.http}/docs)",
        f"  gRPC              {running.grpc}",
        f"  Data and logs     {places.data_dir}",
    ]
    if show_login:
        lines.append(f"  Admin             {running.secrets.admin_email} / {running.secrets.admin_password}")
    return "\n".join(lines)
