"""Runs pip to fill a virtual environment: wheels only, by hash, never anything that a requirement did not name.

pip reads this host's own configuration (index, proxy, certificates). It is a process of its own: nothing of it runs in
the agent, and the agent's credential is not in its environment.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from towline.v1.run_pb2 import Failure

TIMEOUT_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 1.0
_KEPT_OUTPUT: Final = 64 * 1024
_SHOWN_LINES: Final = 12
_OPTIONS: Final = (
    *("--disable-pip-version-check", "--no-input", "--no-color", "install"),
    *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--progress-bar", "off"),
)
# pip says so when it could not reach its index, before it concludes that there is no such package.
_NETWORK: Final = ("after connection broken", "Max retries exceeded", "Read timed out", "Temporary failure")


class PipFailed(Exception):
    """The packages could not be installed; `kind` says whether another try may help."""

    def __init__(self, kind: Failure.Class, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


async def install(requirements: Sequence[str], wheels: Path | None, environment: Path, most_bytes: int) -> None:
    """Installs exactly these requirements into a virtual environment; raises PipFailed."""
    lock = environment / "requirements.lock"
    lock.write_text("".join(f"{line}\n" for line in requirements))
    source = () if wheels is None else ("--no-index", "--find-links", str(wheels))
    command = ("-I", "-m", "pip", "--python", str(environment / "bin" / "python"), *_OPTIONS, *source, "-r", str(lock))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_surroundings(),
        start_new_session=True,
    )
    reading = asyncio.create_task(_output(process))
    try:
        await _watch(reading, environment, most_bytes)
        code = await process.wait()
    finally:
        _kill(process)
        reading.cancel()
        await process.wait()
    if code:
        raise PipFailed(*_explain(reading.result(), offline=wheels is not None))


async def _watch(reading: asyncio.Task[str], environment: Path, most_bytes: int) -> None:
    """Waits for the end of pip's output, and gives up what takes too long or fills the disk."""
    looks = 0
    while not (await asyncio.wait([reading], timeout=_LOOK_SECONDS))[0]:
        looks += 1
        if looks * _LOOK_SECONDS > TIMEOUT_SECONDS:
            raise PipFailed(Failure.TRANSIENT, f"pip did not end within {TIMEOUT_SECONDS:g} s")
        if await asyncio.to_thread(_size, environment) > most_bytes:
            raise PipFailed(Failure.PERMANENT, f"the packages take more than {most_bytes >> 20} MiB")


def _surroundings() -> dict[str, str]:
    """The agent's own settings are not for pip; all that pip may be told by is."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TOWLINE_")}


async def _output(process: asyncio.subprocess.Process) -> str:
    if process.stdout is None:
        raise RuntimeError("pip was started without a pipe")
    kept = b""
    while chunk := await process.stdout.read(_KEPT_OUTPUT):
        kept = (kept + chunk)[-_KEPT_OUTPUT:]
    return kept.decode(errors="replace")


def _size(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _, names in os.walk(folder)
        for name in names
        if os.path.lexists(os.path.join(path, name))
    )


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)


def _explain(output: str, *, offline: bool) -> tuple[Failure.Class, str]:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    away = not offline and any(word in output for word in _NETWORK)
    python = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor} on {sys.platform}"
    last = "\n".join(lines[-_SHOWN_LINES:]) or "pip said nothing"
    return Failure.TRANSIENT if away else Failure.PERMANENT, f"pip, for {python}: {last}"
