import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text
from store_samples import Store, a_run, a_step, add_lease, add_run, an_attempt, an_event

from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.model import (
    AttemptState,
    EventType,
    Failure,
    FailureClass,
    Output,
    RunState,
    StepState,
    Usage,
)
from towline_controlplane.store import run_lists, runs
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.run_lists import RunFilter
from towline_controlplane.store.runs import Request, RowMissing

FAILURE = Failure(FailureClass.TRANSIENT, "TIMEOUT", "took too long", "30 s of 30 s")


def test_a_run_is_stored_with_every_field(store: Store) -> None:
    full = a_run(
        state=RunState.FAILED,
        priority=-7,
        cancel_requested=True,
        failed_steps=2,
        event_count=5,
        start_time=1_500,
        end_time=2_500,
        error=FAILURE,
    )
    store.write(runs.insert_runs, [full], (), ())
    assert store.read(runs.get_run, "run-1", None) == full
    assert store.write(runs.load_runs, ["none", "run-1", "run-1"]) == [full]


def test_a_step_is_stored_with_every_field(store: Store) -> None:
    full = a_step(
        state=StepState.FAILED,
        priority=3,
        open_edges=2,
        satisfied_edges=1,
        attempt=4,
        next_attempt=5,
        failures=3,
        losses=1,
        epoch=9,
        held=True,
        fair_key=77,
        not_before=88,
        config='{"a": 1}',
        output='"out"',
        error=FAILURE,
        agent_id="agent-1",
        start_time=10,
        end_time=20,
    )
    store.write(add_run, steps=(full,))
    assert store.read(runs.get_step, "run-1", "a") == full
    assert store.read(runs.load_steps, [("run-1", "a")]) == [full]


def test_events_are_stored_with_every_field(store: Store) -> None:
    event = an_event(type=EventType.STEP_FAILED, node_id="a", attempt=2, details={"error": {"class": "X"}, "n": [1]})
    store.write(runs.insert_runs, [a_run()], (), [event])
    assert store.read(runs.list_events, "run-1", 0, 10) == [event]


def test_lock_runs_returns_those_that_exist_in_the_order_of_their_ids(store: Store) -> None:
    for run_id in ("run-b", "run-c", "run-a"):
        store.write(add_run, run_id)
    assert list(store.write(runs.lock_runs, ["run-c", "none", "run-a", "run-c"])) == ["run-a", "run-c"]
    assert store.write(runs.lock_runs, []) == {}


def test_load_steps_returns_those_that_exist_each_once(store: Store) -> None:
    store.write(add_run, "run-1", (a_step(node_id="a"), a_step(node_id="b")))
    store.write(add_run, "run-2", (a_step("run-2", "a"), a_step("run-2", "b")))
    keys = [("run-2", "b"), ("run-1", "a"), ("run-1", "none"), ("none", "a"), ("run-1", "a")]
    assert [(s.run_id, s.node_id) for s in store.read(runs.load_steps, keys)] == [("run-1", "a"), ("run-2", "b")]
    assert store.read(runs.load_steps, []) == []


def test_load_steps_of_thousands_at_once(store: Store) -> None:
    steps = tuple(a_step(node_id=f"node[{n}]", position=n) for n in range(3_000))
    store.write(add_run, steps=steps)
    loaded = store.read(runs.load_steps, {("run-1", step.node_id) for step in steps})
    assert {step.node_id: step for step in loaded} == {step.node_id: step for step in steps}


def test_the_newest_attempt_is_the_one_that_the_step_names(store: Store) -> None:
    steps = (a_step(node_id="a", attempt=2), a_step(node_id="b", attempt=1), a_step(node_id="c"))
    attempts = [an_attempt(node_id=node, number=n) for node, n in [("a", 1), ("a", 2), ("b", 1)]]
    store.write(add_run, steps=steps)
    store.write(runs.save_changes, attempts=attempts)
    found = store.read(runs.load_newest_attempts, [("run-1", node) for node in "abc"])
    assert [(attempt.node_id, attempt.number) for attempt in found] == [("a", 2), ("b", 1)]


def test_open_steps_are_those_that_have_not_ended_in_the_order_of_the_dag(store: Store) -> None:
    steps = [a_step(node_id=f"n{p}", position=p, state=state) for p, state in enumerate(StepState)]
    store.write(add_run, steps=tuple(reversed(steps)))
    found = store.read(runs.load_open_steps, "run-1")
    assert [step.state for step in found] == [
        StepState.WAITING,
        StepState.READY,
        StepState.LEASED,
        StepState.PARKED,
    ]


def test_outputs_are_those_of_succeeded_steps_alone(store: Store) -> None:
    steps = (
        a_step(node_id="a", state=StepState.SUCCEEDED, output="null"),
        a_step(node_id="b", state=StepState.SUCCEEDED, output='{"n": 1}'),
        a_step(node_id="c", state=StepState.SUCCEEDED),
        a_step(node_id="d", state=StepState.FAILED, output='"evidence"'),
        a_step(node_id="e", state=StepState.SUCCEEDED, output_digest="0" * 64),
    )
    store.write(add_run, steps=steps)
    small, large = Output('{"n": 1}'), Output(digest="0" * 64)
    keys = [("run-1", node) for node in "abcdef"]
    assert store.read(runs.load_outputs, keys) == {
        ("run-1", "a"): Output("null"),
        ("run-1", "b"): small,
        ("run-1", "e"): large,
    }
    assert store.read(runs.output_steps, "run-1", "bce") == {"b": small, "e": large}


def test_save_changes_changes_everything_that_may_change(store: Store) -> None:
    run, step, attempt = a_run(), a_step(), an_attempt()
    store.write(runs.insert_runs, [run], [step], [an_event()])
    store.write(runs.save_changes, attempts=[attempt])
    new_run = replace(
        run,
        state=RunState.FAILED,
        cancel_requested=True,
        open_steps=0,
        failed_steps=1,
        event_count=2,
        start_time=3,
        end_time=4,
        error=FAILURE,
    )
    new_step = replace(
        step,
        state=StepState.TIMED_OUT,
        queue_id="queue-2",
        priority=1,
        open_edges=0,
        satisfied_edges=5,
        attempt=1,
        next_attempt=2,
        failures=1,
        losses=2,
        epoch=1,
        held=True,
        fair_key=6,
        not_before=7,
        config="{}",
        output="[]",
        error=FAILURE,
        agent_id="agent-1",
        start_time=8,
        end_time=9,
    )
    new_attempt = replace(
        attempt,
        state=AttemptState.TIMED_OUT,
        epoch=2,
        agent_id="agent-2",
        session_id="session-2",
        token_hash="other",
        create_time=5,
        offer_expire_time=6,
        start_time=7,
        end_time=8,
        error=FAILURE,
        usage=Usage(1, 2.5),
        report_digest="digest",
        evidence=Evidence(Cause.EXIT_CODE),
        memory_limit_mb=1024,
    )
    event = an_event(sequence=2)
    store.write(runs.save_changes, [new_run], [new_step], [new_attempt], [event])
    assert store.read(runs.get_run, "run-1", None) == new_run
    assert store.read(runs.get_step, "run-1", "a") == new_step
    assert store.read(runs.list_attempts, "run-1", "a") == [new_attempt]
    assert store.read(runs.list_events, "run-1", 1, 10) == [event]


def test_save_changes_of_nothing_does_nothing(store: Store) -> None:
    store.write(runs.save_changes)


def test_save_changes_leaves_what_is_fixed_at_creation(store: Store) -> None:
    store.write(add_run)
    store.write(runs.save_changes, [a_run(owner_id="thief", input="null")], [a_step(position=9)])
    assert store.read(runs.get_run, "run-1", "owner-1") == a_run()
    assert store.read(runs.get_step, "run-1", "a") == a_step()


def test_the_later_of_two_changes_of_a_row_stands(store: Store) -> None:
    store.write(add_run)
    changes = [an_attempt(state=AttemptState.RUNNING), an_attempt(state=AttemptState.SUCCEEDED)]
    store.write(runs.save_changes, attempts=changes, steps=[a_step(epoch=1), a_step(epoch=2)])
    assert store.read(runs.list_attempts, "run-1", "a") == [an_attempt(state=AttemptState.SUCCEEDED)]
    assert store.read(runs.load_steps, [("run-1", "a")]) == [a_step(epoch=2)]


def test_a_missing_run_fails_the_whole_transaction(store: Store) -> None:
    store.write(add_run)
    with pytest.raises(RowMissing, match="1 of 2"):
        store.write(runs.save_changes, [a_run(event_count=9), a_run("none")])
    assert store.read(runs.get_run, "run-1", None) == a_run()


def test_a_missing_step_fails_the_whole_transaction(store: Store) -> None:
    store.write(add_run)
    with pytest.raises(RowMissing, match="1 of 2"):
        store.write(runs.save_changes, [a_run(event_count=9)], [a_step(epoch=4), a_step(node_id="none")])
    assert store.read(runs.get_run, "run-1", None) == a_run()


@pytest.mark.parametrize("state", [s for s in AttemptState if s not in (AttemptState.OFFERED, AttemptState.RUNNING)])
def test_an_attempt_that_has_ended_never_changes(store: Store, state: AttemptState) -> None:
    store.write(add_run)
    store.write(runs.save_changes, attempts=[an_attempt(state=state)])
    for other in (AttemptState.RUNNING, AttemptState.SUCCEEDED):
        with pytest.raises(RowMissing):
            store.write(runs.save_changes, attempts=[an_attempt(state=other)])
    assert store.read(runs.list_attempts, "run-1", "a") == [an_attempt(state=state)]


def test_an_offer_may_be_replaced_by_one_of_a_higher_epoch(store: Store) -> None:
    store.write(add_run)
    store.write(runs.save_changes, attempts=[an_attempt()])
    again = an_attempt(epoch=2, agent_id="agent-2", token_hash="other", offer_expire_time=9_999)
    store.write(runs.save_changes, attempts=[again])
    assert store.read(runs.list_attempts, "run-1", "a") == [again]


def test_an_execution_key_names_one_attempt(store: Store) -> None:
    store.write(add_run)
    with pytest.raises(Exception, match=r"(?i)unique"):
        store.write(
            runs.save_changes,
            attempts=[an_attempt(number=1, execution_key="key"), an_attempt(number=2, execution_key="key")],
        )


def test_the_numbers_of_events_are_used_once(store: Store) -> None:
    store.write(runs.insert_runs, [a_run()], (), [an_event()])
    with pytest.raises(Exception, match=r"(?i)unique"):
        store.write(runs.save_changes, events=[an_event(type=EventType.RUN_PAUSED)])


def test_an_attempt_needs_its_step_and_a_step_its_run(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        store.write(runs.insert_runs, [a_run()], [a_step("none")], ())
    store.write(add_run)
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        store.write(runs.save_changes, attempts=[an_attempt(node_id="none")])


def test_all_rows_of_a_run_go_with_it(store: Store) -> None:
    def delete(tx: Transaction) -> None:
        add_run(tx)
        add_lease(tx)
        runs.save_changes(tx, events=[an_event()])
        tx.connection.execute(text("DELETE FROM runs"))

    store.write(delete)
    assert store.read(runs.get_step, "run-1", "a") is None
    assert store.read(runs.list_attempts, "run-1", "a") == []
    assert store.read(runs.list_events, "run-1", 0, 10) == []


def test_a_run_is_seen_by_its_owner_and_by_admins(store: Store) -> None:
    store.write(add_run)
    assert store.read(runs.get_run, "run-1", "owner-1") == a_run()
    assert store.read(runs.get_run, "run-1", None) == a_run()
    assert store.read(runs.get_run, "run-1", "owner-2") is None
    assert store.read(runs.get_run, "none", None) is None


def test_steps_are_listed_in_the_order_of_the_dag_page_by_page(store: Store) -> None:
    steps = tuple(a_step(node_id=node) for node in "dbeca")
    store.write(add_run, steps=steps)
    assert [s.node_id for s in store.read(runs.list_steps, "run-1", -1, 3)] == ["a", "b", "c"]
    assert [s.node_id for s in store.read(runs.list_steps, "run-1", 2, 3)] == ["d", "e"]
    assert store.read(runs.list_steps, "none", -1, 3) == []


def test_attempts_are_listed_in_the_order_of_their_numbers(store: Store) -> None:
    store.write(add_run)
    store.write(runs.save_changes, attempts=[an_attempt(number=n) for n in (10, 2, 1)])
    assert [attempt.number for attempt in store.read(runs.list_attempts, "run-1", "a")] == [1, 2, 10]


def test_events_are_listed_in_order_from_behind_a_cursor(store: Store) -> None:
    store.write(runs.insert_runs, [a_run()], (), [an_event(sequence=n) for n in range(1, 12)])
    assert [e.sequence for e in store.read(runs.list_events, "run-1", 0, 3)] == [1, 2, 3]
    assert [e.sequence for e in store.read(runs.list_events, "run-1", 8, 10)] == [9, 10, 11]
    assert store.read(runs.list_events, "run-1", 11, 10) == []


def remember(tx: Transaction, request_id: str, digest: str, run_id: str, owner_id: str = "owner-1") -> Request:
    request = Request(owner_id, request_id, digest, run_id)
    return runs.remember_requests(tx, [request])[request.key]


def test_a_request_is_remembered_with_what_came_first(store: Store) -> None:
    first = store.write(remember, "key", "digest-1", "run-1")
    assert first == Request("owner-1", "key", "digest-1", "run-1")
    assert store.write(remember, "key", "digest-1", "run-2") == first
    assert store.write(remember, "key", "digest-2", "run-3") == first
    assert store.write(remember, "key", "digest-2", "run-4", "owner-2").run_id == "run-4"
    assert store.write(remember, "other", "digest-2", "run-5").run_id == "run-5"


def test_of_requests_that_come_together_the_first_is_remembered(store: Store) -> None:
    store.write(remember, "b", "digest", "run-0")
    together = [Request("owner-1", key, "digest", f"run-{n}") for n, key in enumerate("cbaca", 1)]
    found = store.write(runs.remember_requests, together)
    assert {key: request.run_id for (_, key), request in found.items()} == {"a": "run-3", "b": "run-0", "c": "run-1"}


def test_a_request_that_was_rolled_back_is_forgotten(store: Store) -> None:
    def fail(tx: Transaction) -> None:
        remember(tx, "key", "digest", "run-1")
        raise LookupError

    with pytest.raises(LookupError):
        store.write(fail)
    assert store.write(remember, "key", "digest", "run-2").run_id == "run-2"


def test_of_racing_requests_with_one_key_one_starts_a_run(store: Store) -> None:
    def start(tx: Transaction, run_id: str) -> str:
        first = remember(tx, "key", "digest", run_id)
        if first.run_id == run_id:
            add_run(tx, run_id)
        return first.run_id

    async def scenario() -> list[str]:
        return await asyncio.gather(
            *(store.database.write(lambda tx, run_id=f"run-{n}": start(tx, run_id)) for n in range(20))
        )

    answers = set(store.runner.run(scenario()))
    assert len(answers) == 1
    assert {run.id for run in store.read(run_lists.list_runs, RunFilter(), None, 100)} == answers
