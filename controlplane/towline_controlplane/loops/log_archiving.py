"""Archives logs: those that are final, and those whose rest is not expected any more.

A log is claimed for a while, so that replicas do not do the same work; one that cannot be archived keeps no other
waiting.
"""

from dataclasses import dataclass
from typing import Final

import structlog

from towline_controlplane.errors import Unavailable
from towline_controlplane.log_archive import LogArchive
from towline_controlplane.store import log_archives
from towline_controlplane.store.database import Database

_AT_ONCE: Final = 16
_CLAIM_SECONDS: Final = 120

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LogArchiving:
    """Archives a log at its last byte, or `grace_seconds` after the end of its attempt with what is there."""

    database: Database
    archive: LogArchive
    grace_seconds: float

    async def tick(self) -> int:
        """Archives all that is due now; returns how many logs."""
        count = 0
        while due := await self.database.write(
            lambda tx: log_archives.claim_due(
                tx, tx.now - int(self.grace_seconds * 1_000_000), tx.now + _CLAIM_SECONDS * 1_000_000, _AT_ONCE
            )
        ):
            for each in due:
                try:
                    count += await self.archive.store(each)
                except Unavailable as error:
                    log.warning("logs cannot be archived now", reason=error.message)
                    return count
                except Exception:
                    log.exception("a log cannot be archived", key=each.key)
        return count
