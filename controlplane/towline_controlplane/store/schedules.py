"""Schedules, and what became of their times.

A schedule is changed only by whoever has locked it and found it as it was when the change was decided. A time has one
row, which a run is started with: both are committed together, or neither.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, and_, delete, exists, func, insert, select, text, tuple_, update

from towline_controlplane.schedule_records import Firing, OpenRun, Outcome, Schedule
from towline_controlplane.store import schedule_tables, tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import FIRING, SCHEDULE, insert_if_absent

_SCHEDULES = tables.schedules.c
_FIRINGS = tables.schedule_firings.c
_RUNS = tables.runs.c
_COLUMNS = SCHEDULE.columns(tables.schedules)
_LIVING = text(schedule_tables.LIVING)
_OPEN_OF_SCHEDULE = text(tables.OPEN_OF_SCHEDULE)


def insert_schedule(tx: Transaction, schedule: Schedule) -> None:
    """Inserts a schedule."""
    tx.connection.execute(insert(tables.schedules).values(SCHEDULE.row(schedule)))


def get_schedule(tx: Transaction, schedule_id: str, owner_id: str | None) -> Schedule | None:
    """Returns a schedule if it is the owner's; owner None sees all."""
    return SCHEDULE.first(tx.connection, _living(owner_id).where(_SCHEDULES.id == schedule_id))


def lock_schedule(tx: Transaction, schedule_id: str, owner_id: str | None) -> Schedule | None:
    """Returns a schedule if it is the owner's, locked until the transaction ends."""
    query = _living(owner_id).where(_SCHEDULES.id == schedule_id)
    return SCHEDULE.first(tx.connection, query.with_for_update())


def lock_if_unchanged(tx: Transaction, schedule: Schedule) -> bool:
    """Locks a schedule, only if it is still as given; False at once if another transaction has it."""
    # Who records what became of a time shares the key of its schedule, which is not changed.
    query = _living(None).where(_SCHEDULES.id == schedule.id).with_for_update(skip_locked=True, key_share=True)
    return SCHEDULE.first(tx.connection, query) == schedule


def save_schedule(tx: Transaction, schedule: Schedule) -> None:
    """Writes a schedule that the transaction has locked."""
    row = SCHEDULE.row(schedule)
    del row["id"]
    tx.connection.execute(update(tables.schedules).where(_SCHEDULES.id == schedule.id).values(row))


def park_schedule(tx: Transaction, schedule_id: str, note: str) -> bool:
    """Pauses a schedule without a look at what is in its row; False if there is none."""
    values: dict[str, object] = {
        "paused": True,
        "note": note,
        "revision": _SCHEDULES.revision + 1,
        "next_time": None,
        "due_time": None,
        "buffered_time": None,
    }
    return tx.connection.execute(_of_living(schedule_id).values(values)).rowcount == 1


def delete_schedule(tx: Transaction, schedule_id: str) -> bool:
    """Hides a schedule for good, so that no time of it comes; False if there is none."""
    values = {"delete_time": tx.now, "next_time": None, "due_time": None, "buffered_time": None}
    return tx.connection.execute(_of_living(schedule_id).values(values)).rowcount == 1


def list_schedules(tx: Transaction, owner_id: str | None, after: tuple[int, str] | None, limit: int) -> list[Schedule]:
    """Returns schedules, newest first, from behind `after` (create time and id of the last one seen)."""
    query = _living(owner_id).order_by(_SCHEDULES.create_time.desc(), _SCHEDULES.id.desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(_SCHEDULES.create_time, _SCHEDULES.id) < after)
    return SCHEDULE.all(tx.connection, query)


def count_schedules(tx: Transaction, owner_id: str) -> int:
    """Returns how many schedules an owner has."""
    query = select(func.count()).select_from(tables.schedules).where(_LIVING, _SCHEDULES.owner_id == owner_id)
    return tx.connection.execute(query).scalar_one()


def due_many(tx: Transaction, limit: int) -> list[str]:
    """Returns schedules that are due: of each owner the longest due first, the owners in turn (I32)."""
    turn = func.row_number().over(partition_by=_SCHEDULES.owner_id, order_by=(_SCHEDULES.due_time, _SCHEDULES.id))
    due = (
        select(_SCHEDULES.id, _SCHEDULES.due_time, turn.label("turn"))
        .where(text(schedule_tables.DUE), _SCHEDULES.due_time <= tx.now)
        .subquery()
    )
    query = select(due.c.id).order_by(due.c.turn, due.c.due_time, due.c.id).limit(limit)
    return list(tx.connection.scalars(query))


def ready_buffered(tx: Transaction, limit: int) -> list[str]:
    """Returns schedules with a buffered time that nothing stands in the way of any more, the oldest time first."""
    in_the_way = exists().where(_OPEN_OF_SCHEDULE, _RUNS.schedule_id == _SCHEDULES.id)
    query = select(_SCHEDULES.id).where(text(schedule_tables.BUFFERED), ~in_the_way)
    return list(tx.connection.scalars(query.order_by(_SCHEDULES.buffered_time, _SCHEDULES.id).limit(limit)))


def next_due_time(tx: Transaction) -> int | None:
    """Returns when the first schedule is due (µs), which may be past; None if none will be."""
    query = select(_SCHEDULES.due_time).where(text(schedule_tables.DUE)).order_by(_SCHEDULES.due_time).limit(1)
    return tx.connection.scalar(query)


def open_runs(tx: Transaction, schedule_id: str, limit: int) -> list[OpenRun]:
    """Returns runs of a schedule that have not ended."""
    query = select(_RUNS.id, _RUNS.cancel_requested).where(_OPEN_OF_SCHEDULE, _RUNS.schedule_id == schedule_id)
    return [OpenRun(run_id, bool(cancelled)) for run_id, cancelled in tx.connection.execute(query.limit(limit))]


def record_firing(tx: Transaction, firing: Firing) -> bool:
    """Writes down what became of a time; False, and nothing is written, if a run was started for it before.

    A time that had no run may get one yet: its row is replaced.
    """
    row = FIRING.row(firing)
    del row["run_state"]
    if insert_if_absent(tx.connection, tables.schedule_firings, row):
        return True
    unstarted = (
        _FIRINGS.schedule_id == firing.schedule_id,
        _FIRINGS.scheduled_time == firing.scheduled_time,
        _FIRINGS.outcome != Outcome.STARTED.value,
    )
    return tx.connection.execute(update(tables.schedule_firings).where(*unstarted).values(row)).rowcount == 1


def started_among(tx: Transaction, schedule_id: str, times: Collection[int]) -> dict[int, str]:
    """Returns the runs that were started for those of the times that have one."""
    query = select(_FIRINGS.scheduled_time, _FIRINGS.started_run_id).where(
        _FIRINGS.schedule_id == schedule_id,
        _FIRINGS.scheduled_time.in_(sorted(times)),
        _FIRINGS.outcome == Outcome.STARTED.value,
    )
    return {row.scheduled_time: row.started_run_id for row in tx.connection.execute(query)}


def list_firings(tx: Transaction, schedule_id: str, limit: int) -> list[Firing]:
    """Returns what became of the newest times, the newest first, with the states of their runs."""
    visible = and_(_RUNS.id == _FIRINGS.started_run_id, func.coalesce(_RUNS.end_time, 1) > 0)
    columns = [_RUNS.state if name == "run_state" else _FIRINGS[name] for name in FIRING.names]
    query = select(*columns).select_from(tables.schedule_firings.outerjoin(tables.runs, visible))
    query = query.where(_FIRINGS.schedule_id == schedule_id).order_by(_FIRINGS.scheduled_time.desc())
    return FIRING.all(tx.connection, query.limit(limit))


def delete_old_firings(tx: Transaction, made_before: int, limit: int) -> int:
    """Deletes what became of times, written before a time (µs), the oldest first; returns how much."""
    old = select(_FIRINGS.schedule_id, _FIRINGS.scheduled_time).where(_FIRINGS.create_time < made_before)
    some = old.order_by(_FIRINGS.create_time).limit(limit)
    return _delete_firings(tx, some)


def delete_some_deleted(tx: Transaction, limit: int) -> int:
    """Deletes rows of a deleted schedule, and the schedule once it has none; returns how many."""
    query = select(_SCHEDULES.id).where(text(schedule_tables.DELETED)).order_by(_SCHEDULES.id).limit(1)
    schedule_id = tx.connection.scalar(query.with_for_update(skip_locked=True))
    if schedule_id is None:
        return 0
    some = select(_FIRINGS.schedule_id, _FIRINGS.scheduled_time).where(_FIRINGS.schedule_id == schedule_id)
    if count := _delete_firings(tx, some.limit(limit)):
        return count
    return tx.connection.execute(delete(tables.schedules).where(_SCHEDULES.id == schedule_id)).rowcount


def _delete_firings(tx: Transaction, keys: Select[Any, Any]) -> int:
    chosen = tuple_(_FIRINGS.schedule_id, _FIRINGS.scheduled_time).in_(keys)
    return tx.connection.execute(delete(tables.schedule_firings).where(chosen)).rowcount


def _living(owner_id: str | None) -> Select[Any]:
    query = select(*_COLUMNS).where(_LIVING)
    return query if owner_id is None else query.where(_SCHEDULES.owner_id == owner_id)


def _of_living(schedule_id: str) -> Any:
    return update(tables.schedules).where(_SCHEDULES.id == schedule_id, _SCHEDULES.delete_time.is_(None))
