"""The control plane process: migrates, opens the store, serves until SIGTERM or SIGINT, ends cleanly.

Run as `python -m towline_controlplane`.
"""

import asyncio
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from pydantic import ValidationError

from towline_controlplane.composition import ControlPlane, compose
from towline_controlplane.enrollment import accept_bootstrap_token
from towline_controlplane.errors import TowlineError
from towline_controlplane.settings import Settings
from towline_controlplane.store.database import Database
from towline_controlplane.store.sqlite import DatabaseInUse
from towline_controlplane.telemetry import configure_logging
from towline_migrations import CannotMigrate, upgrade

log = structlog.get_logger("towline_controlplane")


async def serve(settings: Settings) -> None:
    """Serves until the process is told to stop; what was accepted is committed before it returns."""
    await asyncio.to_thread(_prepare, settings)
    database = Database.open(settings.database)
    try:
        control_plane = compose(settings, database)
        duties = [asyncio.ensure_future(duty()) for duty in control_plane.duties]
        try:
            await _introduce(settings, database, control_plane)
            await _serve_until_stopped(settings, control_plane, duties)
        finally:
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)
    finally:
        await database.close()
    log.info("stopped")


async def _serve_until_stopped(
    settings: Settings, control_plane: ControlPlane, duties: Sequence[asyncio.Future[None]]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = await control_plane.server.start()
    address = f"{settings.grpc_host}:{port}"
    log.info("serving", address=address)
    if settings.ready_file is not None:
        await asyncio.to_thread(_announce, settings.ready_file, address)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([stopping, *duties], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        control_plane.server.retire()
        await asyncio.sleep(settings.drain_seconds)
    control_plane.parts.agents.end_long_polls()
    await control_plane.server.stop()
    for duty in duties:
        if duty.done():
            duty.result()


async def _introduce(settings: Settings, database: Database, control_plane: ControlPlane) -> None:
    if settings.admin_email and settings.admin_password.get_secret_value():
        await control_plane.parts.accounts.ensure_admin(
            settings.admin_email, settings.admin_password.get_secret_value()
        )
    if settings.enrollment_token_file is not None:
        await accept_bootstrap_token(database, settings.enrollment_token_file)


def _prepare(settings: Settings) -> None:
    settings.create_data_dir()
    shutil.rmtree(settings.spool_folder, ignore_errors=True)  # bundles whose upload a crash cut off
    settings.spool_folder.mkdir(mode=0o700, exist_ok=True)
    upgrade(settings.database)


def _announce(file: Path, address: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"address": address}))
    os.replace(part, file)


def main() -> int:
    """Runs the process; returns its exit code."""
    try:
        settings = Settings()  # pyright: ignore[reportCallIssue] - every field comes from the environment
    except ValidationError as error:
        for problem in error.errors(include_input=False):
            print(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}", file=sys.stderr)  # noqa: T201
        return 2
    configure_logging(settings.log_level)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its memory holds keys and what they decrypt
    try:
        asyncio.run(serve(settings))
    except (CannotMigrate, DatabaseInUse, TowlineError, ValueError, OSError, RuntimeError) as error:
        log.error("cannot serve", reason=str(error))  # noqa: TRY400 - a reason for an operator, not a defect
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
