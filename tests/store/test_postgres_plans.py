"""The hot queries of PostgreSQL find their rows through an index once there are many."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from postgres_server import SharedPostgres
from sqlalchemy import event
from store_samples import a_run, a_step, a_version, a_workflow, an_attempt

from towline_controlplane.model import AttemptState, RunState, StepState
from towline_controlplane.store import leases, run_lists, runs, schedules, workflows
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.keysets import Order
from towline_controlplane.store.postgres import Driver
from towline_controlplane.store.run_lists import BY_END, RunFilter
from towline_controlplane.store.workflows import WorkflowFilter

Query = Callable[[Transaction], object]

STEP = ("run-7", "n7")
OPEN = frozenset({RunState.PENDING, RunState.RUNNING})
BY_WRITERS: dict[str, tuple[Query, set[str]]] = {
    "lock_runs": (lambda tx: runs.lock_runs(tx, ["run-7"]), {"runs_pk"}),
    "load_runs": (lambda tx: runs.load_runs(tx, ["run-7"]), {"runs_pk", "run_inputs_pk"}),
    "load_steps": (lambda tx: runs.load_steps(tx, [STEP]), {"steps_pk"}),
    "load_newest_attempts": (lambda tx: runs.load_newest_attempts(tx, [STEP]), {"steps_pk", "attempts_pk"}),
    "load_outputs": (lambda tx: runs.load_outputs(tx, [STEP]), {"steps_pk"}),
    "save_changes": (
        lambda tx: runs.save_changes(tx, [a_run("run-7")], [a_step("run-7", "n31")], [an_attempt("run-7", "n31")]),
        {"runs_pk", "steps_pk"},
    ),
    "lock_claimable": (lambda tx: leases.lock_claimable(tx, ["queue-1"], 9), {"steps_claimable", "runs_pk"}),
    "first_fair_keys": (lambda tx: leases.first_fair_keys(tx, [("queue-1", 0)]), {"steps_claimable"}),
}
BY_READERS: dict[str, tuple[Query, set[str]]] = {
    "due_after": (lambda tx: leases.due_after(tx, 1, 9), {"steps_due"}),
    "expired_offers": (lambda tx: leases.expired_offers(tx, 9), {"attempts_offered", "steps_pk"}),
    "open_leases": (lambda tx: leases.open_leases(tx, "agent-7"), {"attempts_open", "steps_pk", "runs_pk"}),
    "get_run": (lambda tx: runs.get_run(tx, "run-7", None), {"runs_pk", "run_inputs_pk"}),
    "list_runs": (lambda tx: run_lists.list_runs(tx, RunFilter(), (1_000, "run-7"), 9), {"runs_by_time"}),
    "list_runs that are open": (
        lambda tx: run_lists.list_runs(tx, RunFilter("owner-1", states=OPEN), (1_000, "run-7"), 9),
        {"runs_open_by_owner"},
    ),
    "list_runs with a label": (
        lambda tx: run_lists.list_runs(tx, RunFilter(labels={"a": "b"}), (1_000, "run-7"), 9, Order("create_time")),
        {"runs_by_time"},
    ),
    "list_runs by their end": (
        lambda tx: run_lists.list_runs(tx, RunFilter("owner-1"), (1, "run-7"), 9, Order(BY_END)),
        {"runs_ended_by_owner"},
    ),
    "list_runs by their end, of all": (
        lambda tx: run_lists.list_runs(tx, RunFilter(), (1_000, "run-7"), 9, Order(BY_END, descending=True)),
        {"runs_ended_by_time"},
    ),
    "list_workflows by name": (
        lambda tx: workflows.list_workflows(tx, WorkflowFilter("owner-1", "a"), ("a", "b"), 9, Order("name")),
        {"workflows_by_owner_name"},
    ),
    "list_workflows by change": (
        lambda tx: workflows.list_workflows(tx, WorkflowFilter(), (1, "b"), 9, Order("update_time")),
        {"workflows_by_change"},
    ),
    "due_many": (lambda tx: schedules.due_many(tx, 9), {"schedules_due"}),
    "next_due_time": (schedules.next_due_time, {"schedules_due"}),
    "ready_buffered": (lambda tx: schedules.ready_buffered(tx, 9), {"schedules_buffered", "runs_of_schedule_open"}),
    "open_runs of a schedule": (lambda tx: schedules.open_runs(tx, "s", 9), {"runs_of_schedule_open"}),
    "list_steps": (lambda tx: runs.list_steps(tx, "run-7", 3, 9), set()),
    "list_events": (lambda tx: runs.list_events(tx, "run-7", 1, 9), set()),
}


class Spy:
    """The driver's connection, remembering the statements that go through it."""

    def __init__(self, driver: Any, seen: list[tuple[str, Any]]) -> None:
        self.driver = driver
        self.seen = seen
        self.rows_written = 0

    def execute(self, statement: str, parameters: Any, **options: Any) -> Any:
        self.seen.append((statement, parameters))
        return self.driver.execute(statement, parameters, **options)

    def pipeline(self) -> Any:
        return self.driver.pipeline()


def explain(tx: Transaction, query: Query) -> str:
    seen: list[tuple[str, Any]] = []
    # These tables are filled, not large: what counts is that an index serves the query.
    tx.driver.execute("SET LOCAL enable_seqscan = off")

    def remember(*arguments: Any) -> None:
        seen.append(arguments[2:4])

    event.listen(tx.connection, "before_cursor_execute", remember)
    query(replace(tx, driver=Spy(tx.driver, seen)))
    event.remove(tx.connection, "before_cursor_execute", remember)
    plans = [tx.driver.execute(f"EXPLAIN {statement}", parameters).fetchall() for statement, parameters in seen]
    return "\n".join(line for plan in plans for (line,) in plan)


def fill(tx: Transaction) -> None:
    numbers = range(150)
    steps = [
        a_step(f"run-{run}", f"n{n}", position=n, **_kind(run, n), queue_id=f"queue-{run % 20}")
        for run in numbers
        for n in range(40)
    ]
    attempts = [
        an_attempt(s.run_id, s.node_id, agent_id=f"agent-{n % 50}", state=_attempt_state(s.state, n))
        for n, s in enumerate(steps)
        if s.attempt
    ]
    owned = [a_run(f"run-{n}", create_time=n, owner_id=f"owner-{n % 9}", **_run_kind(n)) for n in numbers]
    runs.insert_runs(tx, owned, steps, ())
    runs.save_changes(tx, attempts=attempts)
    for n in range(900):
        workflow = a_workflow(f"w{n}", owner_id=f"owner-{n % 9}", name=f"{'ab'[n % 2]}{n}", update_time=n)
        workflows.insert_workflow(tx, workflow, a_version(workflow.id))


def _run_kind(n: int) -> dict[str, Any]:
    return {"state": RunState.SUCCEEDED, "end_time": n + 1} if n % 2 else {}


def _kind(run: int, n: int) -> dict[str, Any]:
    if n < 30:
        return {"state": StepState.SUCCEEDED, "attempt": 1, "epoch": 1}
    if n < 33:
        return {"state": StepState.LEASED, "attempt": 1, "epoch": 1}
    return {"not_before": 1_000 + run if n % 8 == 0 else 0}


def _attempt_state(state: StepState, n: int) -> AttemptState:
    if state is StepState.SUCCEEDED:
        return AttemptState.SUCCEEDED
    return AttemptState.RUNNING if n % 10 else AttemptState.OFFERED


@pytest.fixture(scope="module")
def filled(postgres: SharedPostgres, postgres_template: str) -> Iterator[str]:
    name = postgres.create_database(postgres_template)

    async def prepare() -> None:
        database = Database.open(postgres.url(name))
        await database.write(fill)
        await database.close()

    asyncio.run(prepare())
    postgres.fetch("ANALYZE", database=name)
    yield postgres.url(name)
    postgres.drop_database(name)


def plan_of(url: str, query: Query, *, writes: bool) -> str:
    async def ask() -> str:
        database = Database.open(url)
        transact = database.write if writes else database.read
        try:
            return await transact(lambda tx: explain(tx, query))
        finally:
            await database.close()

    return asyncio.run(ask())


def judge(plan: str, expected: set[str]) -> None:
    assert "Seq Scan on" not in plan, plan
    assert expected <= set(re.findall(r"(?:using|Scan on) (\w+)", plan)), plan


@pytest.mark.parametrize("name", BY_WRITERS)
def test_what_writers_ask_is_found_by_index(filled: str, name: str) -> None:
    query, expected = BY_WRITERS[name]
    judge(plan_of(filled, query, writes=True), expected)


@pytest.mark.parametrize("name", BY_READERS)
def test_what_readers_ask_is_found_by_index(filled: str, name: str) -> None:
    query, expected = BY_READERS[name]
    judge(plan_of(filled, query, writes=False), expected)


def test_a_claim_is_read_in_its_order_and_sorts_nothing(filled: str) -> None:
    plan = plan_of(filled, BY_WRITERS["lock_claimable"][0], writes=True)
    candidates = plan.split("LockRows")[0]
    assert "Index Only Scan using steps_claimable" in candidates
    assert "Sort" not in candidates


def test_plans_are_old_once_rows_have_doubled_or_some_seconds_have_passed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("towline_controlplane.store.postgres.time.monotonic", lambda: now)
    with Driver.connect(postgres_url) as driver:
        found: list[bool] = []
        for rows, seconds in [(0, 0), (199, 0), (200, 0), (0, 0), (399, 0), (400, 0), (0, 9), (0, 1), (0, 0)]:
            driver.rows_written = max(driver.rows_written, rows)
            now += seconds
            found.append(driver.has_old_plans())
    assert found == [False, False, True, False, False, True, False, True, False]
