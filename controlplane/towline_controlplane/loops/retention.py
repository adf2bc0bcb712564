"""Deletes what is past its time: ended runs, and then what only they referred to.

Every batch is a short transaction of its own, so that commits wait for one batch at most. A blob goes a day after
nothing refers to it any more; whoever stores the same bytes meanwhile keeps it.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from towline_controlplane.blobs import Blobs
from towline_controlplane.store import (
    api_keys,
    artifacts,
    audit_events,
    released_blobs,
    retention,
    schedules,
    sign_ins,
)
from towline_controlplane.store.database import Database

_RUNS_AT_ONCE = 100
_KEYS_AT_ONCE = 500
_WORKFLOWS_AT_ONCE = 20
_BLOBS_AT_ONCE = 100
_ARTIFACTS_AT_ONCE = 500
_AUDIT_EVENTS_AT_ONCE = 1_000
_FIRINGS_AT_ONCE = 1_000
_GRACE_HOURS = 24.0
"""How long a blob, a deleted workflow, or an artifact that no result names, stays after it was last seen in use."""
_EXPIRED_KEYS_HOURS = 30 * 24.0
"""How long an API key that has expired is still listed."""
_SENTENCE_HOURS = 1.0
"""A blob that was condemned so long ago is removed by the next one who looks: who began with it is gone."""
_REMOVAL_SECONDS = 600.0
"""How long a sentence is carried out at most: less than a sentence, so that no two do it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """Keeps runs for `retention_days` after their end (0: for ever), idempotency keys at least as long as their run."""

    database: Database
    blobs: Blobs
    retention_days: float
    idempotency_hours: float
    monotonic: Callable[[], float] = time.monotonic
    audit_days: float = 365.0

    async def tick(self) -> Counter[str]:
        """Deletes all that is past its time now; returns how much of what."""
        deleted: Counter[str] = Counter()
        await self._hide_runs()
        await self._delete_runs(deleted)
        await self._delete_requests(deleted)
        await self._delete_workflows(deleted)
        await self._delete_firings(deleted)
        deleted["enrollment_tokens"] = await self.database.write(retention.delete_expired_tokens)
        deleted["sign_ins"] = await self.database.write(sign_ins.delete_expired)
        deleted["api_keys"] = await self.database.write(
            lambda tx: api_keys.delete_expired(tx, tx.now - _micros(_EXPIRED_KEYS_HOURS))
        )
        await self._delete_audit_events(deleted)
        await self._delete_artifacts(deleted)
        await self._delete_blobs(deleted)
        if deleted.total():
            log.info("retention", **+deleted)
        return +deleted

    async def _hide_runs(self) -> None:
        if not self.retention_days:
            return
        kept = _micros(self.retention_days * 24)
        while await self.database.write(lambda tx: retention.hide_ended_runs(tx, tx.now - kept, _RUNS_AT_ONCE)):
            pass

    async def _delete_runs(self, deleted: Counter[str]) -> None:
        while batch := await self.database.write(retention.delete_batch):
            deleted["runs"] += batch.run_gone
            deleted["rows"] += batch.rows

    async def _delete_requests(self, deleted: Counter[str]) -> None:
        kept = _micros(self.idempotency_hours)
        while keys := await self.database.read(
            lambda tx: retention.orphaned_requests(tx, tx.now - kept, _KEYS_AT_ONCE)
        ):
            deleted["idempotency_keys"] += await self.database.write(
                lambda tx, keys=keys: retention.delete_requests(tx, keys)
            )

    async def _delete_workflows(self, deleted: Counter[str]) -> None:
        kept = _micros(_GRACE_HOURS)
        while ids := await self.database.read(
            lambda tx: retention.unused_workflows(tx, tx.now - kept, _WORKFLOWS_AT_ONCE)
        ):
            deleted["workflows"] += await self.database.write(
                lambda tx, ids=ids: retention.delete_workflows(tx, ids, tx.now - kept)
            )

    async def _delete_audit_events(self, deleted: Counter[str]) -> None:
        kept = _micros(self.audit_days * 24)
        while kept and (
            count := await self.database.write(
                lambda tx: audit_events.delete_some(tx, tx.now - kept, _AUDIT_EVENTS_AT_ONCE)
            )
        ):
            deleted["audit_events"] += count

    async def _delete_firings(self, deleted: Counter[str]) -> None:
        while count := await self.database.write(lambda tx: schedules.delete_some_deleted(tx, _FIRINGS_AT_ONCE)):
            deleted["rows_of_schedules"] += count
        if not self.retention_days:
            return
        kept = _micros(self.retention_days * 24)
        while count := await self.database.write(
            lambda tx: schedules.delete_old_firings(tx, tx.now - kept, _FIRINGS_AT_ONCE)
        ):
            deleted["rows_of_schedules"] += count

    async def _delete_artifacts(self, deleted: Counter[str]) -> None:
        kept = _micros(_GRACE_HOURS)
        while count := await self.database.write(
            lambda tx: artifacts.delete_unbound(tx, tx.now - kept, _ARTIFACTS_AT_ONCE)
        ):
            deleted["artifacts_without_a_result"] += count

    async def _delete_blobs(self, deleted: Counter[str]) -> None:
        grace, sentence = _micros(_GRACE_HOURS), _micros(_SENTENCE_HOURS)
        ends_at = self.monotonic() + _REMOVAL_SECONDS
        digests = await self.database.write(
            lambda tx: released_blobs.condemn(tx, tx.now - grace, tx.now - sentence, _BLOBS_AT_ONCE)
        )
        for digest in digests:
            if self.monotonic() >= ends_at:
                return
            await self.blobs.delete(digest)
            await self.database.write(lambda tx, digest=digest: released_blobs.forget(tx, [digest]))
            deleted["blobs"] += 1


def _micros(hours: float) -> int:
    return int(hours * 3_600_000_000)
