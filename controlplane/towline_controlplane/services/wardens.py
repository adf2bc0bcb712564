"""Streams end with the credential that opened them: at its expiry, and as soon as it is revoked.

A revocation rings; a ring that is lost costs the time between two looks.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import structlog

from towline_controlplane.bus import Doorbell, credentials_topic
from towline_controlplane.errors import TowlineError, Unavailable
from towline_controlplane.services.callers import Context
from towline_controlplane.services.gate import Gate, OpenCall
from towline_controlplane.services.open_streams import OpenStreams

_SHORTEST_SECONDS: Final = 0.05

Item = TypeVar("Item")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wardens:
    """Watches the credentials of open streams; looks every `recheck_seconds` without a ring."""

    gate: Gate
    streams: OpenStreams
    doorbell: Doorbell
    recheck_seconds: float = 30.0

    @asynccontextmanager
    async def watching(self, call: OpenCall, context: Context) -> AsyncGenerator[None]:
        """Has the running task refused by `streams` once its caller may not call the method any more."""
        task = asyncio.current_task()
        if task is None or self.gate.is_open(call.method):
            yield
            return
        watch = asyncio.create_task(self._watch(task, call, context))
        try:
            yield
        finally:
            watch.cancel()
            self.streams.forget(task)

    async def checked(self, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
        """Yields the items of an upload, until the running task is refused; also after the last."""
        task = asyncio.current_task()
        async for item in items:
            self.streams.check(task)
            yield item
        self.streams.check(task)

    async def _watch(self, task: "asyncio.Task[Any]", call: OpenCall, context: Context) -> None:
        try:
            async with self.doorbell.listen([credentials_topic(call.caller_id)]) as bell:
                while True:
                    # The first look is for what happened between the admission and the ear at the bell.
                    await self._look(call, context)
                    await bell.wait(self._seconds(call))
        except TowlineError as error:
            self.streams.refuse(task, error)
        except Exception:
            log.exception("the credential of a stream cannot be watched")
            self.streams.refuse(task, TowlineError("the server failed; go on from the last cursor"))

    async def _look(self, call: OpenCall, context: Context) -> None:
        try:
            await self.gate.look_again(replace(call), context)
        except Unavailable:  # while the database is away, nobody can revoke anything
            log.info("the credential of a stream could not be looked at")

    def _seconds(self, call: OpenCall) -> float:
        expires = call.credential.expire_time
        left = self.recheck_seconds if expires is None else expires / 1_000_000 - time.time()
        return max(_SHORTEST_SECONDS, min(self.recheck_seconds, left))
