"""Slots of concurrency limits, and rows that only steps and runs of later kinds will use."""

import asyncio

import pytest
from sqlalchemy import update
from store_samples import Store, a_run, a_step, add_run

from towline_controlplane.model import RunState, StepState
from towline_controlplane.store import concurrency, leases, runs, tables
from towline_controlplane.store.database import Transaction


def add_waiting(store: Store, run_id: str, **fields: object) -> None:
    waiting = {"concurrency_group": "g", "concurrency_limit": 2, "admitted": False, "state": RunState.PENDING}
    run = a_run(run_id, **(waiting | fields))
    store.write(runs.insert_runs, [run], [a_step(run_id)], ())


def next_runs(store: Store) -> list[str]:
    return [run.run_id for run in store.read(concurrency.next_to_admit, "g", 10)]


def test_a_group_has_as_many_slots_as_its_limit(store: Store) -> None:
    for run_id in "abc":
        add_waiting(store, run_id)
    assert [store.write(concurrency.take_slot, "g", 2, run_id) for run_id in "abc"] == [True, True, False]
    assert store.read(concurrency.slot_holders, "g") == ["a", "b"]
    store.write(concurrency.release_slots, ["a", "c"])
    assert store.write(concurrency.take_slot, "g", 2, "c")


def test_a_smaller_limit_counts_every_slot_that_is_taken(store: Store) -> None:
    for run_id in "abcd":
        add_waiting(store, run_id)
    for run_id in "abc":
        store.write(concurrency.take_slot, "g", 3, run_id)
    store.write(concurrency.release_slots, ["a"])
    assert not store.write(concurrency.take_slot, "g", 2, "d")
    assert not store.write(concurrency.take_slot, "g", 1, "d")
    assert store.write(concurrency.take_slot, "g", 3, "d")


def test_a_slot_goes_with_its_run(store: Store) -> None:
    add_waiting(store, "a")
    store.write(concurrency.take_slot, "g", 2, "a")
    store.write(lambda tx: tx.connection.execute(tables.runs.delete()))
    assert store.read(concurrency.slot_holders, "g") == []


def test_runs_are_admitted_by_priority_then_age_as_far_as_slots_are_free(store: Store) -> None:
    add_waiting(store, "old", create_time=1)
    add_waiting(store, "young", create_time=2)
    add_waiting(store, "urgent", create_time=3, priority=1)
    add_waiting(store, "paused", create_time=0, priority=2, state=RunState.PAUSED)
    add_waiting(store, "ended", create_time=0, priority=2, state=RunState.CANCELLED)
    add_waiting(store, "other", concurrency_group="h")
    assert sorted(store.read(concurrency.waiting_groups)) == ["g", "h"]
    assert next_runs(store) == ["urgent", "old"]
    store.write(concurrency.take_slot, "g", 2, "urgent")
    store.write(runs.save_changes, runs=[a_run("urgent", priority=1, create_time=3, state=RunState.RUNNING)])
    assert next_runs(store) == ["old"]


def test_racing_for_the_last_slot_one_gets_it(store: Store) -> None:
    for number in range(8):
        add_waiting(store, f"r{number}")

    async def race() -> list[bool]:
        takes = [
            store.database.write(lambda tx, n=number: concurrency.take_slot(tx, "g", 1, f"r{n}")) for number in range(8)
        ]
        return await asyncio.gather(*takes)

    assert sum(asyncio.run(race())) == 1


def test_overdue_runs_are_open_and_not_being_stopped(store: Store) -> None:
    now = store.clock.now
    for run_id, fields in {
        "late": {"deadline": now - 1},
        "now": {"deadline": now},
        "soon": {"deadline": now + 1},
        "stopping": {"deadline": now, "cancel_requested": True},
        "ended": {"deadline": now, "state": RunState.FAILED},
        "never": {},
    }.items():
        store.write(runs.insert_runs, [a_run(run_id, **fields)], [], ())
    assert store.read(runs.overdue_runs, 10) == ["late", "now"]


def test_overdue_waits_are_ready_and_not_held(store: Store) -> None:
    now = store.clock.now
    steps = (
        a_step(node_id="a", queue_deadline=now),
        a_step(node_id="b", queue_deadline=now + 1),
        a_step(node_id="c", queue_deadline=now, held=True),
        a_step(node_id="d"),
        a_step(node_id="e", queue_deadline=now, state=StepState.LEASED),
        a_step(node_id="f", queue_deadline=now - 1),
    )
    store.write(add_run, steps=steps)
    assert store.read(leases.overdue_queue_waits, 10) == [("run-1", "f"), ("run-1", "a")]


def test_the_head_of_a_lane_is_its_first_step_that_may_go(store: Store) -> None:
    steps = (
        a_step(node_id="a", fair_key=7),
        a_step(node_id="b", fair_key=3, held=True),
        a_step(node_id="c", fair_key=4, not_before=store.clock.now + 1),
        a_step(node_id="d", fair_key=9, priority=1),
    )
    store.write(add_run, steps=steps)
    lanes = [("queue-1", 0), ("queue-1", 1), ("queue-1", 2), ("queue-2", 0)]
    assert store.read(leases.first_fair_keys, lanes) == {("queue-1", 0): 7, ("queue-1", 1): 9}


def test_a_node_may_become_several_steps_and_a_step_may_be_the_control_planes_own(store: Store) -> None:
    mapped = [a_step(node_id=f"fetch[{n}]", position=0, map_index=n) for n in range(3)]
    whole = a_step(node_id="fetch", position=0, queue_id="", state=StepState.READY)
    store.write(add_run, steps=(whole, *mapped))
    claimable = store.write(leases.lock_claimable, ["queue-1"], 10).keys
    assert claimable == [("run-1", f"fetch[{n}]") for n in range(3)]
    claimed = {step.node_id: step.map_index for step in store.read(runs.load_steps, claimable)}
    assert claimed == {f"fetch[{n}]": n for n in range(3)}
    parked = a_step(node_id="fetch", position=0, queue_id="", state=StepState.PARKED)
    store.write(runs.save_changes, steps=[parked])
    assert store.read(runs.get_step, "run-1", "fetch") == parked
    with pytest.raises(Exception, match="position"):
        store.write(runs.insert_runs, [a_run("run-2")], [a_step("run-2", "x"), a_step("run-2", "y", position=23)], ())

    def adopt(tx: Transaction) -> None:
        child = {"parent_run_id": "run-1", "parent_node_id": "fetch"}
        tx.connection.execute(update(tables.runs).values(child))
        tx.connection.execute(update(tables.steps).values(open_children=3))

    store.write(adopt)
