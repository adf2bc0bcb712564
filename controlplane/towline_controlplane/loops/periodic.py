"""Runs a duty again and again. One bad tick is logged and never ends the duty (I30)."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)


async def periodically(tick: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Calls `tick`, waits, and repeats until it is cancelled."""
    while True:
        try:
            await tick()
        except Exception:
            log.exception("tick failed", duty=getattr(tick, "__qualname__", repr(tick)))
        await asyncio.sleep(seconds)
