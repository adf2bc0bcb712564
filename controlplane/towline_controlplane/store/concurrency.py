"""Slots of groups of runs with a limit. A slot is a row that its run owns, never a count."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, func, select, text

from towline_controlplane.model import RunState
from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import insert_if_absent


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that waits for a slot of its group, and how many slots the group has by this run's version."""

    run_id: str
    limit: int


def take_slot(tx: Transaction, group_id: str, limit: int, run_id: str) -> bool:
    """Gives a run a free slot of its group; False if there is none. Of several that race for the last, one gets it."""
    slots = tables.concurrency_slots
    taken = set(tx.connection.scalars(select(slots.c.number).where(slots.c.group_id == group_id)))
    if len(taken) >= limit:
        return False
    free = (number for number in range(limit) if number not in taken)
    row = {"group_id": group_id, "run_id": run_id, "create_time": tx.now}
    return any(insert_if_absent(tx.connection, slots, {**row, "number": number}) for number in free)


def release_slots(tx: Transaction, run_ids: Collection[str]) -> None:
    """Frees what the runs hold."""
    slots = tables.concurrency_slots
    tx.connection.execute(delete(slots).where(slots.c.run_id.in_(sorted(run_ids))))


def waiting_groups(tx: Transaction) -> list[str]:
    """Returns the groups in which runs wait."""
    runs = tables.runs.c
    query = select(runs.concurrency_group).where(text(tables.UNADMITTED)).distinct()
    return [group for group in tx.connection.scalars(query) if group is not None]


def next_to_admit(tx: Transaction, group_id: str, at_most: int) -> list[WaitingRun]:
    """Returns the runs that the free slots of a group go to: the most urgent, then the oldest; not paused ones."""
    runs, slots = tables.runs.c, tables.concurrency_slots.c
    taken = tx.connection.execute(
        select(func.count()).select_from(tables.concurrency_slots).where(slots.group_id == group_id)
    ).scalar_one()
    query = (
        select(runs.id, runs.concurrency_limit)
        .where(runs.concurrency_group == group_id, text(tables.UNADMITTED), runs.state != RunState.PAUSED.value)
        .order_by(runs.priority.desc(), runs.create_time, runs.id)
        .limit(at_most)
    )
    waiting = [WaitingRun(run_id, limit) for run_id, limit in tx.connection.execute(query)]
    return [run for place, run in enumerate(waiting) if taken + place < run.limit]


def slot_holders(tx: Transaction, group_id: str) -> list[str]:
    """Returns the runs that hold the slots of a group, the oldest holder first."""
    slots = tables.concurrency_slots.c
    query = select(slots.run_id).where(slots.group_id == group_id).order_by(slots.create_time, slots.number)
    return list(tx.connection.scalars(query))
