"""Ends a run without a look at what it is: for one that cannot be loaded or decided any more (I30).

The last resort, so it reads as little as it can. What is open may become CANCELLED, and an open run FAILED, by every
row of the transition tables; a test holds this to them.
"""

from dataclasses import asdict

from sqlalchemy import select, update

from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.model import (
    AttemptState,
    Event,
    EventType,
    Failure,
    RunState,
    StepState,
)
from towline_controlplane.store import concurrency, tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.rows import ATTEMPT, EVENT, to_json
from towline_controlplane.store.statements import insert

_INSERT_EVENT = insert("events", EVENT.names)


def fail_run(tx: Transaction, run_id: str, failure: Failure) -> bool:
    """Fails an open run with all its steps; one that was being stopped ends as it was to. False if it is not open."""
    runs = tables.runs.c
    columns = (runs.cancel_requested, runs.deadline_reached, runs.failed_steps, runs.event_count)
    query = select(*columns).where(runs.id == run_id, runs.end_time.is_(None)).with_for_update(key_share=True)
    run = tx.connection.execute(query).first()
    if run is None:
        return False
    cancelled, timed_out, failed_steps, number = run
    events = _cancel_open_steps(tx, run_id, number)
    state = RunState.TIMED_OUT if timed_out else RunState.CANCELLED if cancelled else RunState.FAILED
    error = asdict(failure)
    details = {"error": {"class": error["kind"], **error}}
    end = Event(run_id, number + len(events) + 1, tx.now, EventType(f"RUN_{state}"), details=details)
    tx.connection.execute(
        update(tables.runs)
        .where(runs.id == run_id)
        .values(
            state=state.value,
            error=None if state is RunState.CANCELLED else to_json(error),
            end_time=tx.now,
            frozen=False,
            open_steps=0,
            failed_steps=failed_steps + (0 if cancelled else len(events)),
            event_count=end.sequence,
        )
    )
    tx.execute_many((_INSERT_EVENT, [EVENT.values(event) for event in (*events, end)]))
    concurrency.release_slots(tx, [run_id])
    return True


def _cancel_open_steps(tx: Transaction, run_id: str, number: int) -> list[Event]:
    steps, attempts = tables.steps, tables.attempts
    query = select(steps.c.node_id, steps.c.attempt).where(steps.c.run_id == run_id, steps.c.end_time.is_(None))
    found = tx.connection.execute(query.order_by(steps.c.position, steps.c.node_id)).all()
    for table, state in ((attempts, AttemptState.CANCELLED), (steps, StepState.CANCELLED)):
        of_run = update(table).where(table.c.run_id == run_id, table.c.end_time.is_(None))
        died = {"evidence": ATTEMPT.stored("evidence", Evidence(Cause.INTERNAL))} if table is attempts else {}
        tx.connection.execute(of_run.values(state=state.value, end_time=tx.now, **died))
    tx.connection.execute(update(steps).where(steps.c.run_id == run_id, steps.c.held).values(held=False))
    return [
        Event(run_id, number + place, tx.now, EventType.STEP_CANCELLED, node_id, attempt)
        for place, (node_id, attempt) in enumerate(found, 1)
    ]
