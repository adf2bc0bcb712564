import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import Store, a_run, a_step, add_lease, add_run

from towline_controlplane.model import AttemptState, Lease, Step, StepState
from towline_controlplane.store import leases, runs
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.leases import OpenLease


def claimable(store: Store, *queue_ids: str, limit: int = 100) -> list[str]:
    return [node_id for _, node_id in store.write(leases.lock_claimable, queue_ids or ("queue-1",), limit).keys]


def test_claimable_steps_are_ready_not_held_and_due(store: Store) -> None:
    others = [state for state in StepState if state is not StepState.READY]
    steps = (
        a_step(node_id="a"),
        a_step(node_id="b", held=True),
        a_step(node_id="c", not_before=store.clock.now),
        a_step(node_id="d", not_before=store.clock.now + 1),
        *(a_step(node_id=state.lower(), position=10 + n, state=state) for n, state in enumerate(others)),
    )
    store.write(add_run, steps=steps)
    assert claimable(store) == ["a", "c"]
    store.clock.now += 1
    assert claimable(store) == ["a", "c", "d"]


def test_claimable_steps_come_with_the_newest_events_of_their_runs(store: Store) -> None:
    store.write(add_run, "run-1", (a_step(node_id="a"), a_step(node_id="b", position=1)))
    store.write(add_run, "run-2", (a_step("run-2"),))
    store.write(runs.save_changes, [a_run("run-2", event_count=7)])
    newest = {run_id: store.write(runs.lock_runs, [run_id])[run_id] for run_id in ("run-1", "run-2")}
    found = store.write(leases.lock_claimable, ["queue-1"], 9)
    assert [run_id for run_id, _ in found.keys] == ["run-1", "run-1", "run-2"]
    assert found.event_counts == newest
    assert newest["run-2"] == 7


@pytest.mark.parametrize(
    ("changes", "claimable"),
    [
        ({}, True),
        ({"not_before": 10}, True),
        ({"not_before": 11}, False),
        ({"held": True}, False),
        ({"state": StepState.LEASED}, False),
        ({"state": StepState.WAITING}, False),
    ],
)
def test_under_the_lock_a_step_is_judged_again(changes: dict[str, Any], claimable: bool) -> None:
    assert leases.is_claimable(a_step(**changes), now=10) is claimable


def test_claims_go_by_priority_then_fair_key_then_age_then_position(store: Store) -> None:
    store.write(
        add_run,
        "run-2",
        (
            a_step("run-2", "h", position=1, priority=5, fair_key=9),
            a_step("run-2", "a", position=2, priority=-5, fair_key=1),
            a_step("run-2", "c", position=3, fair_key=2),
        ),
    )
    store.write(
        add_run,
        "run-1",
        (
            a_step("run-1", "d", position=2, fair_key=2),
            a_step("run-1", "e", position=1, fair_key=2),
            a_step("run-1", "f", position=3, fair_key=1),
        ),
    )
    assert claimable(store) == ["h", "f", "e", "d", "c", "a"]
    assert claimable(store, limit=3) == ["h", "f", "e"]


def test_claims_of_several_queues_are_merged_by_urgency(store: Store) -> None:
    steps = tuple(
        a_step(node_id=node, queue_id=f"queue-{queue}", priority=priority)
        for node, queue, priority in [("a", 1, 0), ("b", 2, 5), ("c", 3, 9), ("d", 1, 7), ("e", 2, -1)]
    )
    store.write(add_run, steps=steps)
    assert claimable(store, "queue-2", "queue-1", "none", "queue-2") == ["d", "b", "a", "e"]
    assert claimable(store, "queue-1", "queue-2", limit=2) == ["d", "b"]
    assert store.write(leases.lock_claimable, [], 10).keys == []


def test_claims_of_equal_priority_take_from_the_queues_in_turn(store: Store) -> None:
    queued = {"a1": ("a", 10), "a2": ("a", 20), "b1": ("b", 900), "b2": ("b", 950), "c1": ("c", 15)}
    steps = (a_step(node_id=node, position=key, queue_id=queue, fair_key=key) for node, (queue, key) in queued.items())
    store.write(add_run, steps=tuple(steps))

    def claimed(chance: float, limit: int) -> list[str]:
        return [node_id for _, node_id in store.write(leases.lock_claimable, ["a", "b", "c"], limit, chance).keys]

    assert [claimed(chance, 1) for chance in (0.0, 0.4, 0.7)] == [["a1"], ["b1"], ["c1"]]
    assert claimed(0.4, 100) == ["b1", "c1", "a1", "b2", "a2"]


_PRIORITIES = st.lists(st.integers(-2, 2).map(lambda priority: -priority), max_size=6).map(sorted)


@given(st.lists(_PRIORITIES.filter(bool), min_size=1, max_size=5))
def test_no_queue_starves_an_agent_that_takes_one_step_at_a_time(queued: list[list[int]]) -> None:
    rows = [[(priority, number, n) for n, priority in enumerate(each)] for number, each in enumerate(queued)]
    chances = [(number + 0.5) / len(rows) for number in range(len(rows))]
    most_urgent = min(each[0][0] for each in rows)
    served = {leases.in_turn(rows, chance)[0][1] for chance in chances}
    assert served == {number for number, each in enumerate(rows) if each[0][0] == most_urgent}


@given(st.lists(_PRIORITIES, max_size=5), st.floats(0, 1, exclude_max=True))
def test_turns_keep_priorities_the_order_of_each_queue_and_every_row(queued: list[list[int]], chance: float) -> None:
    rows = [[(priority, number, n) for n, priority in enumerate(each)] for number, each in enumerate(queued)]
    merged = leases.in_turn(rows, chance)
    assert [row[0] for row in merged] == sorted(row[0] for row in merged)
    assert [[row for row in merged if row[1] == number] for number in range(len(rows))] == rows
    for priority in {row[0] for row in merged}:
        turns = [row[1] for row in merged if row[0] == priority]
        for at in range(len(turns)):
            still_waiting = set(turns[at:])
            assert max(turns[:at].count(n) for n in set(turns)) - min(turns[:at].count(n) for n in still_waiting) <= 1


def test_racing_claims_never_get_the_same_step(store: Store) -> None:
    def claim(tx: Transaction) -> list[Step]:
        found = runs.load_steps(tx, leases.lock_claimable(tx, ["queue-1"], 3).keys)
        runs.save_changes(tx, steps=[replace(s, state=StepState.LEASED, agent_id="a") for s in found])
        return found

    async def scenario() -> list[list[Step]]:
        return await asyncio.gather(*(store.database.write(claim) for _ in range(8)))

    store.write(add_run, steps=tuple(a_step(node_id=f"n{n}", position=n) for n in range(20)))
    claimed = [step.node_id for batch in store.runner.run(scenario()) for step in batch]
    assert sorted(claimed) == sorted(f"n{n}" for n in range(20))


def test_expired_offers_are_unconfirmed_and_past_their_time_the_oldest_first(store: Store) -> None:
    store.clock.now = 5_000
    store.write(add_run, steps=tuple(a_step(node_id=node) for node in "abcd"))
    for node, expires in [("a", 5_000), ("b", 5_001), ("c", 4_000), ("d", 3_000)]:
        store.write(add_lease, node_id=node, offer_expire_time=expires)
    confirmed = replace(store.read(runs.list_attempts, "run-1", "d")[0], state=AttemptState.RUNNING)
    store.write(runs.save_changes, attempts=[confirmed])
    assert store.read(leases.expired_offers, 10) == [("run-1", "c"), ("run-1", "a")]
    assert store.read(leases.expired_offers, 1) == [("run-1", "c")]


@pytest.mark.parametrize(
    "gone",
    [
        {"state": StepState.READY},
        {"state": StepState.LEASED, "attempt": 2, "epoch": 1},
        {"state": StepState.LEASED, "attempt": 1, "epoch": 2},
        {"state": StepState.PARKED},
    ],
    ids=["went back", "next attempt", "offered again", "parked"],
)
def test_an_offer_that_is_no_longer_its_steps_is_neither_expired_nor_held(
    store: Store, gone: dict[str, object]
) -> None:
    store.clock.now = 5_000
    store.write(add_run)
    store.write(add_lease, offer_expire_time=4_000)
    assert store.read(leases.expired_offers, 10) == [("run-1", "a")]
    [step] = store.read(runs.load_steps, [("run-1", "a")])
    store.write(runs.save_changes, steps=[replace(step, agent_id="agent-1", **gone)])
    assert store.read(leases.expired_offers, 10) == []
    assert store.read(leases.open_leases, "agent-1") == []
    assert store.read(leases.leases_of_other_sessions, "agent-1", "session-2") == []


def test_an_agent_holds_its_offered_and_running_attempts(store: Store) -> None:
    store.write(add_run, "run-1", tuple(a_step(node_id=node) for node in "abc"))
    store.write(add_run, "run-2", (a_step("run-2", "a"),), cancel_requested=True)
    store.write(add_run, "run-3", (a_step("run-3", "a"),), frozen=True)
    offered = store.write(add_lease, "run-1", "a")
    running = store.write(add_lease, "run-1", "b", state=AttemptState.RUNNING)
    store.write(add_lease, "run-1", "c", agent_id="agent-2")
    cancelled = store.write(add_lease, "run-2", "a")
    frozen = store.write(add_lease, "run-3", "a")
    held = sorted(store.read(leases.open_leases, "agent-1"), key=lambda lease: lease.attempt.execution_key)
    assert held == [
        OpenLease(offered, cancel_requested=False),
        OpenLease(running, cancel_requested=False),
        OpenLease(cancelled, cancel_requested=True),
        OpenLease(frozen, cancel_requested=False, frozen=True),
    ]
    assert store.read(leases.open_leases, "none") == []


def test_an_ended_attempt_is_not_held(store: Store) -> None:
    store.write(add_run)
    attempt = store.write(add_lease)
    store.write(runs.save_changes, attempts=[replace(attempt, state=AttemptState.LOST, end_time=9)])
    assert store.read(leases.open_leases, "agent-1") == []


def test_leases_of_other_sessions_are_those_of_the_same_agent(store: Store) -> None:
    store.write(add_run, steps=tuple(a_step(node_id=node) for node in "abc"))
    old = store.write(add_lease, "run-1", "a", session_id="session-old")
    store.write(add_lease, "run-1", "b", session_id="session-new")
    store.write(add_lease, "run-1", "c", session_id="session-old", agent_id="agent-2")
    assert store.read(leases.leases_of_other_sessions, "agent-1", "session-new") == [old]


def test_what_an_agent_has_kept_goes_over_to_its_new_session_if_the_lease_is_its_own(store: Store) -> None:
    store.write(add_run, steps=tuple(a_step(node_id=node) for node in "abcde"))
    kept = store.write(add_lease, "run-1", "a", session_id="old", token_hash="hash of a")
    others = [
        store.write(add_lease, "run-1", node, session_id="old", token_hash=f"hash of {node}", **fields)
        for node, fields in {"b": {}, "c": {"agent_id": "agent-2"}, "d": {}, "e": {}}.items()
    ]
    ended = replace(others[-1], state=AttemptState.FAILED, end_time=store.clock.now)
    store.write(runs.save_changes, attempts=[ended])
    presented = [Lease(a.run_id, a.node_id, a.number, a.epoch, a.token_hash, "agent-1") for a in (kept, *others)]
    wrong = replace(presented[1], token_hash="guessed"), replace(presented[3], epoch=7)
    store.write(
        leases.adopt_many_if_leased, "agent-1", "new", [presented[0], wrong[0], presented[2], wrong[1], presented[4]]
    )
    held = [lease.attempt for lease in store.read(leases.open_leases, "agent-1")]
    assert {attempt.node_id: attempt.session_id for attempt in held} == {"a": "new", "b": "old", "d": "old"}
    assert [each.session_id for each in store.read(runs.list_attempts, "run-1", "e")] == ["old"]
    assert [lease.attempt.session_id for lease in store.read(leases.open_leases, "agent-2")] == ["old"]


def test_timers_are_those_of_delayed_ready_steps_the_earliest_first(store: Store) -> None:
    steps = (
        a_step(node_id="a"),
        a_step(node_id="b", not_before=300, queue_id="queue-2"),
        a_step(node_id="c", not_before=100),
        a_step(node_id="d", not_before=200),
        a_step(node_id="e", not_before=150, held=True),
        a_step(node_id="f", not_before=160, state=StepState.LEASED, agent_id="agent-1"),
    )
    store.write(add_run, steps=steps)
    assert store.read(leases.due_after, 0, 10) == [(100, "queue-1"), (200, "queue-1"), (300, "queue-2")]
    assert store.read(leases.due_after, 100, 1) == [(200, "queue-1")]
    assert store.read(leases.due_after, 300, 10) == []
