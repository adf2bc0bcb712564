"""One child process of an installation: started, awaited until it is ready, stopped. Knows no part of Towline."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from towline_cli import launcher

POLL_SECONDS: Final = 0.02
LARGEST_LOG_BYTES: Final = 10 << 20
TAIL_BYTES: Final = 4096
TAIL_LINES: Final = 6


class ChildFailedError(Exception):
    """A child ended, or did not get ready in time; the message holds its last log lines."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What a child is: its name for people, its command, and where it says that it is ready and what it logs."""

    name: str
    command: tuple[str, ...]
    ready_file: Path
    log_file: Path


class Child:
    """A process that lives no longer than this one, in a session of its own so that Ctrl-C reaches only the parent."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self, environment: Mapping[str, str], patience_seconds: float) -> dict[str, Any]:
        """Starts the process and returns what its ready file says; on failure no process is left.

        Call it from the main thread: the process dies with the thread that started it.
        """
        self.spec.ready_file.unlink(missing_ok=True)
        with _open_log(self.spec.log_file) as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *self.spec.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, "TOWLINE_READY_FILE": str(self.spec.ready_file)},
                start_new_session=True,
            )
        try:
            return await self._ready(time.monotonic() + patience_seconds)
        except BaseException:
            await self.stop(grace_seconds=0)
            raise

    async def wait(self) -> int:
        """Returns the exit code once the process has ended; negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> bool:
        """Ends the process, first politely; returns whether it went within the grace period. Idempotent."""
        process = self._process
        if process is None or process.returncode is not None:
            return True
        with contextlib.suppress(ProcessLookupError):
            if grace_seconds > 0:
                process.terminate()
        try:
            async with asyncio.timeout(grace_seconds):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            return False
        return True

    def last_log_lines(self) -> str:
        """Returns the end of the log, indented for a message."""
        with self.spec.log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        return "".join(f"\n    {line}" for line in lines)

    async def _ready(self, gives_up_at: float) -> dict[str, Any]:
        while not self.spec.ready_file.exists():
            if self.pid is None:
                code = await self.wait()
                raise ChildFailedError(f"the {self.spec.name} ended with code {code}{self.last_log_lines()}")
            if time.monotonic() > gives_up_at:
                raise ChildFailedError(f"the {self.spec.name} did not get ready in time{self.last_log_lines()}")
            await asyncio.sleep(POLL_SECONDS)
        return json.loads(self.spec.ready_file.read_bytes())


def _open_log(file: Path) -> IO[bytes]:
    if file.exists() and file.stat().st_size > LARGEST_LOG_BYTES:
        file.replace(file.with_suffix(".log.1"))
    return open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")
