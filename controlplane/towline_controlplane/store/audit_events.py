"""The audit log as rows: appended, listed, deleted by age, never changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import delete, select, tuple_

from towline_controlplane.identity import AuditEvent
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import AUDIT_EVENT

_EVENTS = tables.audit_events.c
_COLUMNS = AUDIT_EVENT.columns(tables.audit_events)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events are wanted; times in µs, from the first and before the second."""

    user_id: str | None = None
    method: str | None = None
    start_time: int | None = None
    end_time: int | None = None


def insert_many(tx: Transaction, events: Sequence[AuditEvent]) -> None:
    """Appends events, as of now."""
    rows = [AUDIT_EVENT.row(replace(event, time=tx.now)) for event in events]
    tx.connection.execute(tables.audit_events.insert(), rows)


def list_events(
    tx: Transaction, wanted: AuditFilter, before: tuple[int, str] | None, limit: int
) -> list[tuple[AuditEvent, str]]:
    """Returns events with the email of their user, the newest first, from behind a time and an id."""
    conditions = [
        *([_EVENTS.user_id == wanted.user_id] if wanted.user_id is not None else ()),
        *([_EVENTS.method == wanted.method] if wanted.method is not None else ()),
        *([_EVENTS.time >= wanted.start_time] if wanted.start_time is not None else ()),
        *([_EVENTS.time < wanted.end_time] if wanted.end_time is not None else ()),
        *([tuple_(_EVENTS.time, _EVENTS.id) < tuple_(*before)] if before is not None else ()),
    ]
    joined = tables.audit_events.outerjoin(tables.users, tables.users.c.id == _EVENTS.user_id)
    query = select(*_COLUMNS, tables.users.c.email).select_from(joined).where(*conditions)
    newest_first = query.order_by(_EVENTS.time.desc(), _EVENTS.id.desc()).limit(limit)
    return [(AUDIT_EVENT.load(row[:-1]), row[-1] or "") for row in tx.connection.execute(newest_first)]


def delete_some(tx: Transaction, before: int, limit: int) -> int:
    """Deletes some events from before a time (µs), the oldest first; returns how many."""
    oldest = select(_EVENTS.id).where(_EVENTS.time < before).order_by(_EVENTS.time, _EVENTS.id).limit(limit)
    return tx.connection.execute(delete(tables.audit_events).where(_EVENTS.id.in_(oldest))).rowcount
