"""The hot queries find their rows through an index, whatever lies in the tables. For SQLite."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from store_samples import Store, a_run, a_step, add_agent, add_run

from towline_controlplane.model import RunState, StepState
from towline_controlplane.store import (
    agents,
    api_keys,
    audit_events,
    leases,
    logs,
    plugins,
    run_lists,
    runs,
    schedules,
    sign_ins,
    users,
    workflows,
)
from towline_controlplane.store.audit_events import AuditFilter
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.keysets import Order
from towline_controlplane.store.logs import LogAppend, LogPosition
from towline_controlplane.store.run_lists import BY_END, RunFilter
from towline_controlplane.store.workflows import WorkflowFilter

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Query = Callable[[Transaction], object]

RUN = "runs (id=?)"
STEP = "steps (run_id=? AND node_id=?)"
INPUT = "run_inputs (run_id=?)"
OPEN = frozenset({RunState.PENDING, RunState.RUNNING})
HELD = "attempts attempts_open (agent_id=?)"

PLANS: dict[str, tuple[Query, list[str]]] = {
    "lock_runs": (lambda tx: runs.lock_runs(tx, ["r"]), [RUN]),
    "load_runs": (lambda tx: runs.load_runs(tx, ["r"]), [RUN, INPUT]),
    "load_steps": (lambda tx: runs.load_steps(tx, [("r", "a")]), [STEP]),
    "load_newest_attempts": (
        lambda tx: runs.load_newest_attempts(tx, [("r", "a")]),
        [STEP, "attempts (run_id=? AND node_id=? AND number=?)"],
    ),
    "load_open_steps": (lambda tx: runs.load_open_steps(tx, "r"), ["steps (run_id=?)"]),
    "load_outputs": (lambda tx: runs.load_outputs(tx, [("r", "a")]), [STEP]),
    "save_changes": (lambda tx: runs.save_changes(tx, [a_run()], [a_step()]), [RUN, STEP]),
    "get_run": (lambda tx: runs.get_run(tx, "r", "o"), [RUN, INPUT]),
    "list_runs": (
        lambda tx: run_lists.list_runs(tx, RunFilter(), (1, "a"), 9),
        ["runs runs_by_time ((create_time,id)<(?,?))", INPUT],
    ),
    "list_runs of an owner": (
        lambda tx: run_lists.list_runs(tx, RunFilter(owner_id="o"), (1, "a"), 9),
        ["runs runs_by_owner (owner_id=? AND (create_time,id)<(?,?))", INPUT],
    ),
    "list_runs of a workflow": (
        lambda tx: run_lists.list_runs(tx, RunFilter(workflow_id="w"), (1, "a"), 9),
        ["runs runs_by_workflow (workflow_id=? AND (create_time,id)<(?,?))", INPUT],
    ),
    "list_runs that are open": (
        lambda tx: run_lists.list_runs(tx, RunFilter(states=OPEN), (1, "a"), 9),
        ["runs runs_open_by_time ((create_time,id)<(?,?))", INPUT],
    ),
    "list_runs that are open, of an owner": (
        lambda tx: run_lists.list_runs(tx, RunFilter("o", states=OPEN), (1, "a"), 9),
        ["runs runs_open_by_owner (owner_id=? AND (create_time,id)<(?,?))", INPUT],
    ),
    "list_runs with a label, the oldest first": (
        lambda tx: run_lists.list_runs(tx, RunFilter("o", labels={"a": "b"}), (1, "a"), 9, Order("create_time")),
        ["runs runs_by_owner (owner_id=? AND (create_time,id)>(?,?))", INPUT],
    ),
    "list_runs of some time": (
        lambda tx: run_lists.list_runs(tx, RunFilter(created_after=1, created_before=9), None, 9),
        ["runs runs_by_time (create_time>? AND create_time<?)", INPUT],
    ),
    "list_runs by their end": (
        lambda tx: run_lists.list_runs(tx, RunFilter(), (1, "a"), 9, Order(BY_END)),
        ["runs runs_ended_by_time ((end_time,id)>(?,?))", INPUT],
    ),
    "list_runs by their end, of an owner": (
        lambda tx: run_lists.list_runs(tx, RunFilter("o"), (1, "a"), 9, Order(BY_END, descending=True)),
        ["runs runs_ended_by_owner (owner_id=? AND end_time>? AND (end_time,id)<(?,?))", INPUT],
    ),
    "list_steps": (lambda tx: runs.list_steps(tx, "r", 1, 9), ["steps (run_id=? AND position>?)"]),
    "get_step": (lambda tx: runs.get_step(tx, "r", "a"), [STEP]),
    "list_attempts": (lambda tx: runs.list_attempts(tx, "r", "a"), ["attempts (run_id=? AND node_id=?)"]),
    "list_events": (lambda tx: runs.list_events(tx, "r", 1, 9), ["events (run_id=? AND sequence>?)"]),
    "lock_claimable": (
        lambda tx: leases.lock_claimable(tx, ["queue-1"], 9),
        ["steps steps_claimable (queue_id=?)", RUN],
    ),
    "expired_offers": (
        lambda tx: leases.expired_offers(tx, 9),
        ["attempts attempts_offered (offer_expire_time<?)", STEP],
    ),
    "open_leases": (lambda tx: leases.open_leases(tx, "agent-1"), [HELD, STEP, RUN]),
    "leases_of_other_sessions": (lambda tx: leases.leases_of_other_sessions(tx, "agent-1", "s"), [HELD, STEP]),
    "due_after": (lambda tx: leases.due_after(tx, 1, 9), ["steps steps_due (not_before>?)"]),
    "get_agent": (lambda tx: agents.get_agent(tx, "agent-1"), ["agents (id=?)"]),
    "find_by_credential": (
        lambda tx: agents.find_by_credential(tx, "c"),
        ["agents (credential_hash=?)", "agents agents_by_next_credential (next_credential_hash=?)"],
    ),
    "renew_if_session": (lambda tx: agents.renew_if_session(tx, "agent-1", "s", 1), ["agents (id=?)"]),
    "lock_agents": (lambda tx: agents.lock_agents(tx, ["agent-1"]), ["agents (id=?)", HELD, STEP]),
    "list_agents": (lambda tx: agents.list_agents(tx, "a", 9), ["agents (name>?)", HELD, STEP, HELD, STEP]),
    "find_by_email": (lambda tx: users.find_by_email(tx, "e"), ["users (email=?)"]),
    "find_by_token": (
        lambda tx: users.find_by_token(tx, "u", 1, "t", "s"),
        ["users (id=?)", "revoked_tokens (token_id=?)"],
    ),
    "find_by_hash": (lambda tx: api_keys.find_by_hash(tx, "h"), ["api_keys (key_hash=?)", "users (id=?)"]),
    "lock_by_family": (lambda tx: sign_ins.lock_by_family(tx, "f"), ["sign_ins (family_hash=?)"]),
    "list_of_user": (
        lambda tx: api_keys.list_of_user(tx, "u", "k", 9),
        ["api_keys api_keys_by_user (user_id=? AND id<?)"],
    ),
    "list_events of all": (
        lambda tx: audit_events.list_events(tx, AuditFilter(start_time=1), (9, "e"), 9),
        ["audit_events audit_events_by_time (time>? AND (time,id)<(?,?))", "users (id=?)"],
    ),
    "list_events of a user": (
        lambda tx: audit_events.list_events(tx, AuditFilter(user_id="u"), (9, "e"), 9),
        ["audit_events audit_events_by_user (user_id=? AND (time,id)<(?,?))", "users (id=?)"],
    ),
    "list_events of a method": (
        lambda tx: audit_events.list_events(tx, AuditFilter(method="m"), (9, "e"), 9),
        ["audit_events audit_events_by_method (method=? AND (time,id)<(?,?))", "users (id=?)"],
    ),
    "list_users": (lambda tx: users.list_users(tx, "e", 9), ["users (email>?)"]),
    "list_workflows": (
        lambda tx: workflows.list_workflows(tx, WorkflowFilter(), (1, "a"), 9),
        ["workflows workflows_by_time ((create_time,id)<(?,?))"],
    ),
    "list_workflows of an owner": (
        lambda tx: workflows.list_workflows(tx, WorkflowFilter("o"), (1, "a"), 9),
        ["workflows workflows_by_owner (owner_id=? AND (create_time,id)<(?,?))"],
    ),
    "list_workflows by name": (
        lambda tx: workflows.list_workflows(tx, WorkflowFilter(name_prefix="a"), None, 9, Order("name")),
        ["workflows workflows_by_name (name>? AND name<?)"],
    ),
    "list_workflows by name, of an owner": (
        lambda tx: workflows.list_workflows(tx, WorkflowFilter("o"), ("a", "b"), 9, Order("name", descending=True)),
        ["workflows workflows_by_owner_name (owner_id=? AND (name,id)<(?,?))"],
    ),
    "list_workflows by change": (
        lambda tx: workflows.list_workflows(tx, WorkflowFilter(), (1, "a"), 9, Order("update_time")),
        ["workflows workflows_by_change ((update_time,id)>(?,?))"],
    ),
    "list_workflows by change, of an owner": (
        lambda tx: workflows.list_workflows(tx, WorkflowFilter("o"), (1, "a"), 9, Order("update_time")),
        ["workflows workflows_by_owner_change (owner_id=? AND (update_time,id)>(?,?))"],
    ),
    "list_versions": (
        lambda tx: workflows.list_versions(tx, "w", 3, 9),
        ["workflow_versions (workflow_id=? AND number<?)"],
    ),
    "find_by_digest": (
        lambda tx: plugins.find_by_digest(tx, "d"),
        ["plugin_versions plugin_versions_by_digest (digest=?)"],
    ),
    "ready_buffered": (
        lambda tx: schedules.ready_buffered(tx, 9),
        ["schedules schedules_buffered (buffered_time>?)", "runs runs_of_schedule_open (schedule_id=?)"],
    ),
    "next_due_time": (schedules.next_due_time, ["schedules schedules_due (due_time>?)"]),
    "open_runs": (lambda tx: schedules.open_runs(tx, "s", 9), ["runs runs_of_schedule_open (schedule_id=?)"]),
    "get_schedule": (lambda tx: schedules.get_schedule(tx, "s", "o"), ["schedules (id=?)"]),
    "list_schedules": (
        lambda tx: schedules.list_schedules(tx, None, (1, "a"), 9),
        ["schedules schedules_by_time ((create_time,id)<(?,?))"],
    ),
    "list_schedules of an owner": (
        lambda tx: schedules.list_schedules(tx, "o", (1, "a"), 9),
        ["schedules schedules_by_owner (owner_id=? AND (create_time,id)<(?,?))"],
    ),
    "count_schedules": (
        lambda tx: schedules.count_schedules(tx, "o"),
        ["schedules schedules_by_owner (owner_id=?)"],
    ),
    "list_firings": (
        lambda tx: schedules.list_firings(tx, "s", 9),
        ["schedule_firings (schedule_id=?)", RUN],
    ),
    "load_sizes": (lambda tx: logs.load_sizes(tx, [("r", "a")]), ["attempt_logs (run_id=? AND node_id=?)"]),
    "load_all_attempts": (
        lambda tx: runs.load_all_attempts(tx, [("r", "a")]),
        ["attempts (run_id=? AND node_id=?)"],
    ),
    "append_many": (
        lambda tx: logs.append_many(tx, [LogAppend("run-1", "a", 1, 0, b"x")]),
        ["attempt_logs (run_id=? AND node_id=?)", "run_logs (run_id=?)", "run_logs (run_id=?)"],
    ),
    "read_chunks": (
        lambda tx: logs.read_chunks(tx, "r", None, LogPosition(1, 1), 9),
        ["log_chunks (run_id=? AND arrival>?)"],
    ),
    "read_chunks of a node": (
        lambda tx: logs.read_chunks(tx, "r", "a", LogPosition(1, 1), 9),
        ["log_chunks log_chunks_by_node (run_id=? AND node_id=? AND arrival>?)"],
    ),
}

ALIASES = {"r": "runs", "i": "run_inputs", "s": "steps", "a": "attempts", "l": "attempt_logs"}
HARMLESS = ("SCAN json_each", "SCAN wanted", "SCAN own", "LIST SUBQUERY", "CORRELATED SCALAR SUBQUERY")


class Spy:
    """The driver's connection, remembering the statements that go through it."""

    def __init__(self, driver: Any, seen: list[tuple[str, Any]]) -> None:
        self.driver = driver
        self.seen = seen

    def execute(self, statement: str, parameters: Any) -> Any:
        self.seen.append((statement, parameters))
        return self.driver.execute(statement, parameters)

    def cursor(self) -> "Spy":
        return self

    def executemany(self, statement: str, rows: Any) -> Any:
        self.seen.append((statement, rows[0]))
        return self.driver.executemany(statement, rows)


def explain(tx: Transaction, query: Query) -> list[str]:
    add_run(tx)
    add_agent(tx)
    seen: list[tuple[str, Any]] = []
    event.listen(tx.connection, "before_cursor_execute", lambda *args: seen.append(args[2:4]))
    query(replace(tx, driver=Spy(tx.driver, seen)))
    plans = [tx.driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters) for statement, parameters in seen]
    return [line for plan in plans for (*_, line) in plan if not line.startswith(HARMLESS)]


def in_short(line: str) -> str:
    """`SEARCH s USING INDEX name (terms)` → `steps name (terms)`, without the names that SQLite makes itself."""
    found = re.fullmatch(r"SEARCH (\w+) USING (?:COVERING )?(?:INDEX|PRIMARY KEY)( \w+)? (\(.*\))(?: LEFT-JOIN)?", line)
    assert found, line
    table, index, terms = found.groups()
    key_of = re.fullmatch(r" sqlite_autoindex_(\w+)_\d+", index or "")
    if key_of:
        return f"{key_of[1]} {terms}"
    return f"{ALIASES.get(table, table)}{index or ''} {terms}"


@pytest.mark.parametrize("name", PLANS)
def test_a_query_searches_by_its_index_and_sorts_nothing(store: Store, name: str) -> None:
    query, searches = PLANS[name]
    assert sorted(in_short(line) for line in store.write(explain, query)) == sorted(searches)


def test_schedules_that_are_not_due_are_not_looked_at(store: Store) -> None:
    plan = store.write(explain, lambda tx: schedules.due_many(tx, 9))
    assert any("INDEX schedules_due (due_time>? AND due_time<?)" in line for line in plan), plan
    assert not any(line.startswith("SCAN schedules") for line in plan), plan


def test_a_claim_looks_at_no_row_that_it_does_not_take(store: Store) -> None:
    steps = [a_step(node_id=f"n{n}", position=n, not_before=10**15 if n % 2 else 0) for n in range(400)]
    finished = [a_step("run-2", f"n{n}", position=n, state=StepState.SUCCEEDED) for n in range(2_000)]
    store.write(add_run, "run-1", tuple(steps))
    store.write(add_run, "run-2", tuple(finished))

    def count_steps(tx: Transaction) -> int:
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        tx.driver.set_progress_handler(tick, 1)
        assert len(leases.lock_claimable(tx, ["queue-1"], 5).keys) == 5
        tx.driver.set_progress_handler(None, 1)
        return ticks

    assert store.write(count_steps) < 600
