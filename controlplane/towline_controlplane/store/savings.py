"""Which large step heads its queue, since when it is passed over, and which agent saves up for it, for all replicas."""

from dataclasses import dataclass

from sqlalchemy import delete, or_, select, update

from towline_controlplane.store import tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import insert_if_absent
from towline_controlplane.store.runs import StepKey


@dataclass(frozen=True, slots=True)
class Passed:
    """The head of a queue that was passed over for want of room; times in µs."""

    queue_id: str
    head: StepKey
    since: int
    saver: str | None = None
    """The agent that saves up for it."""
    ask_time: int = 0
    """When the saver asked last."""


def all_passed(tx: Transaction) -> dict[str, Passed]:
    """Returns the heads that are waited for, by their queues."""
    rows = tx.connection.execute(select(tables.savings))
    return {queue_id: Passed(queue_id, (run_id, node_id), *rest) for queue_id, run_id, node_id, *rest in rows}


def note_passed(tx: Transaction, queue_id: str, head: StepKey) -> Passed:
    """Returns what is known of the head of a queue; one that nobody knew of waits from now on, without a saver."""
    savings, (run_id, node_id) = tables.savings.c, head
    fresh = {"run_id": run_id, "node_id": node_id, "since": tx.now, "saver": None, "ask_time": 0}
    is_other = or_(savings.run_id != run_id, savings.node_id != node_id)
    statement = update(tables.savings).where(savings.queue_id == queue_id, is_other).values(fresh)
    if tx.connection.execute(statement).rowcount == 0:
        insert_if_absent(tx.connection, tables.savings, {"queue_id": queue_id, **fresh})
    query = select(savings.since, savings.saver, savings.ask_time).where(savings.queue_id == queue_id)
    return Passed(queue_id, head, *tx.connection.execute(query).one())


def ask_if_saver(tx: Transaction, passed: Passed, agent_id: str, silent_since: int) -> bool:
    """Makes an agent the saver unless another one is, that has asked after `silent_since`; tells whether it is now."""
    savings, (run_id, node_id) = tables.savings.c, passed.head
    is_free = or_(savings.saver.is_(None), savings.saver == agent_id, savings.ask_time < silent_since)
    statement = (
        update(tables.savings)
        .where(savings.queue_id == passed.queue_id, savings.run_id == run_id, savings.node_id == node_id, is_free)
        .values(saver=agent_id, ask_time=tx.now)
    )
    return tx.connection.execute(statement).rowcount == 1


def forget_passed(tx: Transaction, queue_id: str) -> None:
    """Forgets the head of a queue in which nothing waits."""
    tx.connection.execute(delete(tables.savings).where(tables.savings.c.queue_id == queue_id))
