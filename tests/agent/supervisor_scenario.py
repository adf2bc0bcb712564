"""Real attempts for the tests of the process side: a supervisor, launches of small programs, and what they print."""

import asyncio
import json
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from towline_agent.cgroups import Hierarchy
from towline_agent.execution import Exit, Launch, OutputStream
from towline_agent.supervisor_client import ProcessSupervisor

PATIENCE = 60.0


class Output:
    """What an attempt has printed so far; a test may wait for a text in it."""

    def __init__(self) -> None:
        self.streams: dict[OutputStream, bytes] = dict.fromkeys(OutputStream, b"")
        self._grown = asyncio.Event()

    def __call__(self, stream: OutputStream, data: bytes) -> None:
        self.streams[stream] += data
        self._grown.set()

    @property
    def stdout(self) -> str:
        return self.streams[OutputStream.STDOUT].decode()

    @property
    def stderr(self) -> str:
        return self.streams[OutputStream.STDERR].decode()

    async def lines(self, count: int) -> list[str]:
        """Waits for so many whole lines of stdout."""
        async with asyncio.timeout(PATIENCE):
            while self.stdout.count("\n") < count:
                self._grown.clear()
                await self._grown.wait()
        return self.stdout.splitlines()


class Stage:
    """A supervisor with a folder for attempts and bundles."""

    def __init__(self, supervisor: ProcessSupervisor, folder: Path) -> None:
        self.supervisor = supervisor
        self.folder = folder
        self._count = 0

    def shell(self, script: str, **settings: Any) -> Launch:
        """A launch of an executable shell script."""
        program = self.bundle({"run": f"#!/bin/sh\n{script}\n"})
        return self.launch("run", plugin_dir=program, **settings)

    def python(self, code: str, stdin: Any = None, **settings: Any) -> Launch:
        """A launch of `python:plugin:run`, where the code is the module `plugin`."""
        document = json.dumps({"config": {}, "inputs": {}, "input": None, "context": {}} | (stdin or {})).encode()
        folder = self.bundle({"plugin.py": code})
        return self.launch("python:plugin:run", plugin_dir=folder, stdin=document, **settings)

    def bundle(self, files: dict[str, str]) -> Path:
        self._count += 1
        folder = self.folder / f"bundle-{self._count}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
            (folder / name).chmod(stat.S_IRWXU)
        return folder

    def launch(self, entry_point: str, **settings: Any) -> Launch:
        self._count += 1
        work_dir = self.folder / f"work-{self._count}"
        artifacts_dir = self.folder / f"artifacts-{self._count}"
        for folder in (work_dir, artifacts_dir):
            folder.mkdir()
        defaults: dict[str, Any] = {
            "key": f"attempt-{self._count}",
            "work_dir": work_dir,
            "artifacts_dir": artifacts_dir,
            "plugin_dir": None,
            "environment": {"PATH": "/usr/local/bin:/usr/bin:/bin"},
            "stdin": b"{}",
            "timeout_seconds": PATIENCE,
            "memory_bytes": 512 * 1024 * 1024,
            "output_bytes": 1024 * 1024,
        }
        return Launch(entry_point=entry_point, **(defaults | settings))

    async def run(self, launch: Launch) -> tuple[Exit, Output]:
        output = Output()
        async with asyncio.timeout(PATIENCE):
            return await self.supervisor.run(launch, output), output

    def begin(self, launch: Launch) -> tuple[asyncio.Task[Exit], Output]:
        output = Output()
        return asyncio.create_task(self.supervisor.run(launch, output)), output


@asynccontextmanager
async def stage(folder: Path, packages: tuple[str, ...] = (), groups: Hierarchy | None = None) -> AsyncGenerator[Stage]:
    supervisor = ProcessSupervisor.start(packages, groups=groups)
    try:
        yield Stage(supervisor, folder)
    finally:
        await supervisor.close()


def play(
    folder: Path,
    scenario: Callable[[Stage], Awaitable[None]],
    packages: tuple[str, ...] = (),
    groups: Hierarchy | None = None,
) -> None:
    """Runs a scenario on a stage of its own."""

    async def whole() -> None:
        async with stage(folder, packages, groups) as scene:
            await scenario(scene)

    asyncio.run(whole())
