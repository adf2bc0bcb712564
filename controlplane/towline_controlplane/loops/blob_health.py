"""Looks whether blobs can be kept, and tells the health service; nothing else depends on the answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from towline_controlplane.blobs import Blobs
from towline_controlplane.errors import Unavailable

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BlobHealth:
    """Reports `blobs` as serving or not; says so in the log when that changes."""

    blobs: Blobs
    report: Callable[[bool], Awaitable[None]]
    _serving: bool | None = None

    async def tick(self) -> bool:
        """Looks once, and returns whether blobs can be kept."""
        reason = await self._reason()
        if (reason is None) != self._serving:
            if reason is not None:
                log.error("blobs cannot be kept", reason=reason)
            elif self._serving is not None:
                log.info("blobs can be kept again")
        self._serving = reason is None
        await self.report(self._serving)
        return self._serving

    async def _reason(self) -> str | None:
        try:
            await self.blobs.probe()
        except Unavailable as error:
            return error.message
        return None
