from enum import StrEnum
from typing import Any

import pytest
from sqlalchemy import Table, update
from sqlalchemy.exc import IntegrityError
from store_samples import Store, a_plugin, a_plugin_version, a_run, a_step, a_user, add_run, an_attempt

from towline_controlplane.engine import transitions
from towline_controlplane.model import AttemptState, Role, RunState, StepState
from towline_controlplane.store import plugins, runs, tables, users
from towline_controlplane.store.database import Transaction
from towline_dag.choices import SideEffects

MACHINES: list[tuple[Table, type[StrEnum], frozenset[Any]]] = [
    (tables.runs, RunState, transitions.RUN_TERMINAL),
    (tables.steps, StepState, transitions.STEP_TERMINAL),
    (tables.attempts, AttemptState, transitions.ATTEMPT_TERMINAL),
]
STATES = [(table, state, state in terminal) for table, states, terminal in MACHINES for state in states]


def add_all(tx: Transaction) -> None:
    runs.insert_runs(tx, [a_run()], [a_step()], ())
    runs.save_changes(tx, attempts=[an_attempt()])
    users.insert_user(tx, a_user())
    plugins.insert_plugin(tx, a_plugin())
    plugins.insert_version(tx, a_plugin_version())


def put(tx: Transaction, table: Table, **values: object) -> None:
    tx.connection.execute(update(table).values(values))


@pytest.mark.parametrize(("table", "state", "is_terminal"), STATES, ids=str)
def test_every_state_is_stored_and_has_an_end_exactly_if_it_is_terminal(
    store: Store, table: Table, state: StrEnum, is_terminal: bool
) -> None:
    store.write(add_all)
    store.write(put, table, state=state.value, end_time=5 if is_terminal else None)
    with pytest.raises(IntegrityError, match="ended"):
        store.write(put, table, end_time=None if is_terminal else 5)


@pytest.mark.parametrize("table", [table for table, _, _ in MACHINES], ids=str)
@pytest.mark.parametrize("state", ["", "running", "UNKNOWN"])
def test_no_other_state_is_stored(store: Store, table: Table, state: str) -> None:
    store.write(add_all)
    with pytest.raises(IntegrityError, match="state"):
        store.write(put, table, state=state)


@pytest.mark.parametrize(
    ("table", "column", "kind"),
    [(tables.users, "role", Role), (tables.plugin_versions, "side_effects", SideEffects)],
    ids=str,
)
def test_other_enums_are_checked_too(store: Store, table: Table, column: str, kind: type[StrEnum]) -> None:
    store.write(add_all)
    for value in kind:
        store.write(put, table, **{column: value.value})
    with pytest.raises(IntegrityError, match=column):
        store.write(put, table, **{column: "OTHER"})


def test_counters_never_fall_below_zero(store: Store) -> None:
    store.write(add_run)
    with pytest.raises(Exception, match="open_steps"):
        store.write(runs.save_changes, runs=[a_run(open_steps=-1)])
    with pytest.raises(Exception, match="open_edges"):
        store.write(runs.save_changes, steps=[a_step(open_edges=-1)])


def test_what_a_run_owns_is_keyed_by_the_run_first() -> None:
    by_another_key = (tables.requests, tables.concurrency_slots, tables.savings)
    owned = [t for t in tables.metadata.tables.values() if "run_id" in t.c and t not in by_another_key]
    assert {table.name for table in owned} == {
        *("run_inputs", "steps", "attempts", "artifacts", "events", "run_logs", "attempt_logs", "log_chunks")
    }
    for table in owned:
        assert next(iter(table.primary_key)).name == "run_id"
        assert {key.column.table.name for key in table.foreign_keys} <= {"runs", "steps"}
