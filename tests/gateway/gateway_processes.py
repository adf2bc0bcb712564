"""The gateway as a process of its own."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from gateway_fakes import PATIENCE, eventually


@dataclass(slots=True)
class Running:
    process: asyncio.subprocess.Process

    async def end(self, number: int) -> tuple[int, list[dict[str, Any]]]:
        """Sends a signal; returns the exit code and the log lines."""
        self.process.send_signal(number)
        _, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, [json.loads(line) for line in errors.splitlines()]


async def start(folder: Path, **environment: str) -> asyncio.subprocess.Process:
    ready = str(folder / "ready.json")
    env = {**os.environ, "HTTP_PORT": "0", "TOWLINE_READY_FILE": ready, **environment}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "towline_gateway", env=env, cwd=folder, stderr=asyncio.subprocess.PIPE
    )


@asynccontextmanager
async def gateway_process(folder: Path, server: str) -> AsyncGenerator[tuple[Running, httpx.AsyncClient]]:
    process = await start(folder, TOWLINE_SERVER=server)
    try:
        ready = folder / "ready.json"
        await eventually(lambda: ready.exists() or process.returncode is not None)
        address = json.loads(ready.read_text())["address"]
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE, trust_env=False) as client:
            yield Running(process), client
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
