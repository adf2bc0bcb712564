"""Blobs that may have become garbage, until it is known whether anything still refers to them.

Every use of a blob is noted here before its bytes are written, and again when the row that refers to it goes; so what
a crash leaves behind is known too. A blob that nothing refers to long after its last note is *condemned*: from then on
it cannot be used, so that it can be removed from where it lies, whoever else wants to store the same bytes meanwhile.
"""

from collections.abc import Collection

from sqlalchemy import and_, delete, or_, select, update

from towline_controlplane.errors import Unavailable
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.statements import upsert

# A condemned blob has the time of its sentence as a negative number.
_NOTE = upsert(
    "released_blobs", ("digest", "release_time"), key=("digest",), only_if="released_blobs.release_time >= 0"
)


def note_use(tx: Transaction, digests: Collection[str]) -> None:
    """Keeps blobs that are about to be stored from removal; raises Unavailable while one is being removed."""
    rows = [(digest, tx.now) for digest in sorted(set(digests))]
    if tx.execute_many((_NOTE, rows)) != [len(rows)]:
        raise Unavailable("an output with the same content is being removed: repeat the call")


def release(tx: Transaction, run_id: str) -> None:
    """Notes the blobs that the steps and logs of a run refer to, before they are deleted."""
    steps, logs = tables.steps.c, tables.attempt_logs.c
    outputs = select(steps.output_digest).where(steps.run_id == run_id, steps.output_digest.is_not(None)).distinct()
    objects = select(logs.object_digest).where(logs.run_id == run_id, logs.object_digest.is_not(None)).distinct()
    found = [*tx.connection.scalars(outputs), *tx.connection.scalars(objects)]
    note_use(tx, [digest for digest in found if digest is not None])


def condemn(tx: Transaction, noted_before: int, condemned_before: int, limit: int) -> list[str]:
    """Returns blobs to remove now: unused since `noted_before` (µs), or condemned by one who seems to be gone.

    Racing calls get different ones. Those that are in use after all are taken off the list instead.
    """
    noted = tables.released_blobs.c.release_time
    due = or_(and_(noted >= 0, noted < noted_before), and_(noted < 0, noted > -condemned_before))
    query = select(tables.released_blobs.c.digest).where(due).limit(limit).with_for_update(skip_locked=True)
    digests = list(tx.connection.scalars(query))
    used = _used(tx, digests)
    unused = [digest for digest in digests if digest not in used]
    mine = tables.released_blobs.c.digest
    tx.connection.execute(delete(tables.released_blobs).where(mine.in_(used)))
    tx.connection.execute(update(tables.released_blobs).where(mine.in_(unused)).values(release_time=-tx.now))
    return unused


def forget(tx: Transaction, digests: Collection[str]) -> None:
    """Takes condemned blobs that have been removed off the list: their bytes may be stored again."""
    blobs = tables.released_blobs.c
    tx.connection.execute(delete(tables.released_blobs).where(blobs.digest.in_(list(digests)), blobs.release_time < 0))


def _used(tx: Transaction, digests: Collection[str]) -> set[str]:
    steps, versions = tables.steps.c, tables.plugin_versions.c
    logs, artifacts = tables.attempt_logs.c, tables.artifacts.c
    by_steps = select(steps.output_digest).where(steps.output_digest.in_(digests), steps.output_digest.is_not(None))
    by_plugins = select(versions.digest).where(versions.digest.in_(digests))
    by_logs = select(logs.object_digest).where(logs.object_digest.in_(digests), logs.object_digest.is_not(None))
    by_artifacts = select(artifacts.digest).where(artifacts.digest.in_(digests))
    queries = (by_steps, by_plugins, by_logs, by_artifacts)
    return {digest for query in queries for digest in tx.connection.scalars(query) if digest is not None}
