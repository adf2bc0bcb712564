"""All of Towline on one machine: a control plane, a gateway and an agent as supervised children of this process.

Starts them in the order in which they need one another and stops them in reverse. A child that dies is started again
on the same address. Use it from the main thread: children die with the thread that started them.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import IO, Final

from towline_cli.child import Child, ChildFailedError, ChildSpec
from towline_cli.child_settings import Part, Places, environment_of, settings_of
from towline_cli.ports import port_of, require_free
from towline_cli.private_files import lock_folder, write_private
from towline_cli.processes import command_of, require
from towline_cli.secrets_file import Secrets, load_or_create
from towline_sdk.errors import TowlineError

READY_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 15.0
FIRST_RESTART_SECONDS: Final = 0.5
LONGEST_RESTART_SECONDS: Final = 30.0
# A child that lived this long before it died is not in a crash loop.
STEADY_SECONDS: Final = 60.0
STOP_ORDER: Final = (Part.AGENT, Part.GATEWAY, Part.CONTROL_PLANE)


@dataclass(frozen=True, slots=True)
class Running:
    """An installation that is up: where it can be reached (HOST:PORT) and its first admin."""

    http: str
    grpc: str
    secrets: Secrets
    is_first_start: bool


class Installation:
    """Starts, supervises and stops the parts; `report` receives what a person should know."""

    def __init__(
        self,
        places: Places,
        *,
        inherited: Mapping[str, str] = os.environ,
        commands: Mapping[Part, tuple[str, ...]] | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._places = replace(places, data_dir=places.data_dir.absolute())
        self._inherited = inherited
        self._commands = commands
        self._report = report or _report_to_stderr
        self._children = {part: self._child(part) for part in Part}
        self._keepers: list[asyncio.Task[None]] = []
        self._lock: IO[str] | None = None
        self._server = ""

    async def start(self) -> Running:
        """Returns once all parts are ready, or raises `TowlineError` and leaves no process behind."""
        try:
            secrets, is_first_start = self._prepare()
            self._server = (await self._start(Part.CONTROL_PLANE, secrets))["address"]
            # Another start must find the same port, even if any free one was asked for.
            self._places = replace(self._places, grpc_port=port_of(self._server))
            gateway, _ = await asyncio.gather(self._start(Part.GATEWAY, secrets), self._start(Part.AGENT, secrets))
        except BaseException as error:
            await self.stop()
            if isinstance(error, ChildFailedError):
                raise TowlineError(str(error)) from None
            raise
        self._places = replace(self._places, http_port=port_of(gateway["address"]))
        self._keepers = [asyncio.create_task(self._keep(part, secrets)) for part in Part]
        return Running(gateway["address"], self._server, secrets, is_first_start)

    async def watch(self) -> None:
        """Never returns while supervision works; raises what broke it."""
        await asyncio.gather(*self._keepers)

    async def stop(self) -> None:
        """Stops agent, gateway and control plane in this order; no process is left when it returns. Idempotent."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        for part in STOP_ORDER:
            if not await self._children[part].stop(GRACE_SECONDS):
                self._report(f"the {part} did not stop in {GRACE_SECONDS:.0f} s and was killed")
        if self._lock:
            self._lock.close()

    async def __aenter__(self) -> Running:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _prepare(self) -> tuple[Secrets, bool]:
        if self._commands is None:
            for part in Part:
                require(part)
        data_dir = self._places.data_dir
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = lock_folder(data_dir)
        for folder in ("logs", "run"):
            (data_dir / folder).mkdir(exist_ok=True)
        require_free(self._places.grpc_port, "--grpc-port (GRPC_PORT of the control plane)")
        require_free(self._places.http_port, "--http-port (HTTP_PORT of the gateway)")
        secrets, is_first_start = load_or_create(data_dir / "secrets.json")
        write_private(self._places.enrollment_file, secrets.enrollment_token)
        return secrets, is_first_start

    def _child(self, part: Part) -> Child:
        command = self._commands[part] if self._commands else command_of(part)
        return Child(ChildSpec(part, command, self._places.ready_file(part), self._places.log_file(part)))

    async def _start(self, part: Part, secrets: Secrets) -> dict[str, str]:
        settings = settings_of(part, self._places, secrets, self._server)
        return await self._children[part].start(environment_of(part, self._inherited, settings), READY_SECONDS)

    async def _keep(self, part: Part, secrets: Secrets) -> None:
        child, failures = self._children[part], 0
        while True:
            began = time.monotonic()
            code = await child.wait()
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            pause = min(FIRST_RESTART_SECONDS * 2**failures, LONGEST_RESTART_SECONDS)
            lines = child.last_log_lines()
            self._report(f"the {part} {ending(code)}; starting it again in {pause:.0f} s{lines}")
            await asyncio.sleep(pause)
            with suppress(ChildFailedError):  # it has ended again: the next turn says so
                await self._start(part, secrets)
                self._report(f"the {part} is up again")


def ending(code: int) -> str:
    """Says how a process ended, from its exit code as `subprocess` gives it."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _report_to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
