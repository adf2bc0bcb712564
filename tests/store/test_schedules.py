"""Schedules and what became of their times, as stored."""

from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError
from store_samples import Store, a_run

from towline_controlplane.model import RunState
from towline_controlplane.schedule_records import Firing, OpenRun, Origin, Outcome, Overlap, Schedule
from towline_controlplane.store import retention, runs, schedules
from towline_controlplane.store.database import Transaction

SCHEDULE = Schedule(
    id="s", owner_id="o", name="n é", workflow_id="w", version_id="v", cron=None, interval=60, time_zone="UTC",
    input='{"n": 1}', priority=-3, labels={"team": "data"}, overlap=Overlap.BUFFER_ONE, catch_up_window=9,
    catch_up_limit=2, jitter=1, start_time=5, end_time=500, paused=False, note="why", revision=1, create_time=10,
    update_time=11, next_time=60, due_time=61, buffered_time=None, failures=1, error_code="X", error_message="x",
)  # fmt: skip
FIRING = Firing("s", 60, Outcome.STARTED, Origin.TIMETABLE, "run-1", "", 62)


def add(store: Store, *rows: Schedule) -> None:
    for row in rows or (SCHEDULE,):
        store.write(schedules.insert_schedule, row)


def named(schedule_id: str, **values: object) -> Schedule:
    return replace(SCHEDULE, id=schedule_id, **values)


def add_runs(store: Store, **states: RunState) -> None:
    for run_id, state in states.items():
        store.write(runs.insert_runs, [a_run(run_id, state=state, schedule_id="s", scheduled_time=60)], (), ())


def test_a_schedule_is_stored_as_it_is_and_seen_by_its_owner_alone(store: Store) -> None:
    add(store)
    assert store.read(schedules.get_schedule, "s", "o") == SCHEDULE
    assert store.read(schedules.get_schedule, "s", None) == SCHEDULE
    assert store.read(schedules.get_schedule, "s", "other") is None
    assert store.write(schedules.lock_schedule, "s", "other") is None
    changed = named("s", cron="* * * * *", interval=None, labels={}, next_time=None, due_time=None, buffered_time=60)
    store.write(schedules.save_schedule, changed)
    assert store.read(schedules.get_schedule, "s", "o") == changed


def test_only_who_finds_it_unchanged_gets_the_lock(store: Store) -> None:
    add(store)
    assert store.write(schedules.lock_if_unchanged, SCHEDULE)
    assert not store.write(schedules.lock_if_unchanged, replace(SCHEDULE, next_time=120, due_time=120))
    assert not store.write(schedules.lock_if_unchanged, named("other"))


def test_lists_go_on_behind_the_last_one_seen(store: Store) -> None:
    add(store, *(named(f"s{n}", create_time=n // 2, owner_id=f"o{n % 2}") for n in range(6)))
    first = store.read(schedules.list_schedules, None, None, 4)
    assert [row.id for row in first] == ["s5", "s4", "s3", "s2"]
    assert [row.id for row in store.read(schedules.list_schedules, None, (1, "s2"), 9)] == ["s1", "s0"]
    assert [row.id for row in store.read(schedules.list_schedules, "o1", None, 9)] == ["s5", "s3", "s1"]
    assert store.read(schedules.count_schedules, "o1") == 3


def test_what_is_due_comes_owner_by_owner_the_longest_due_first(store: Store) -> None:
    store.clock.now = 100
    crowd = [named(f"c{n}", owner_id="crowd", due_time=10 + n) for n in range(4)]
    add(store, *crowd, named("a1", owner_id="a", due_time=90), named("b1", owner_id="b", due_time=50))
    add(store, named("later", due_time=101), named("resting", next_time=None, due_time=None))
    assert store.read(schedules.due_many, 4) == ["c0", "b1", "a1", "c1"]
    assert store.read(schedules.next_due_time) == 10
    store.clock.now = 9
    assert store.read(schedules.due_many, 4) == []


def test_a_buffered_time_is_ready_once_no_run_of_its_schedule_is_open(store: Store) -> None:
    add(store, named("s", buffered_time=60), named("free", buffered_time=30), named("other"))
    add_runs(store, **{"run-1": RunState.RUNNING, "run-2": RunState.SUCCEEDED})
    assert store.read(schedules.ready_buffered, 9) == ["free"]
    assert store.read(schedules.open_runs, "s", 9) == [OpenRun("run-1", cancel_requested=False)]
    assert store.read(schedules.open_runs, "free", 9) == []


def test_a_time_gets_one_run_and_one_that_had_none_may_get_it_yet(store: Store) -> None:
    add(store)
    skipped = replace(FIRING, outcome=Outcome.SKIPPED, started_run_id=None, reason="run-0 was open")
    assert store.write(schedules.record_firing, skipped)
    assert store.write(schedules.record_firing, FIRING)
    assert not store.write(schedules.record_firing, replace(FIRING, started_run_id="run-2"))
    assert not store.write(schedules.record_firing, skipped)
    add_runs(store, **{"run-1": RunState.SUCCEEDED})
    assert store.read(schedules.list_firings, "s", 9) == [replace(FIRING, run_state=RunState.SUCCEEDED)]


def test_the_newest_times_come_first_and_a_deleted_run_has_no_state(store: Store) -> None:
    add(store)
    add_runs(store, **{"run-1": RunState.FAILED, "run-2": RunState.FAILED})
    for number in (1, 2, 3):
        firing = replace(FIRING, scheduled_time=number * 60, started_run_id=f"run-{number}")
        store.write(schedules.record_firing, firing)
    store.write(hide, "run-2")
    found = store.read(schedules.list_firings, "s", 3)
    assert [(each.scheduled_time, each.run_state) for each in found] == [(180, None), (120, None), (60, "FAILED")]
    assert len(store.read(schedules.list_firings, "s", 2)) == 2


def hide(tx: Transaction, run_id: str) -> None:
    retention.hide_runs(tx, [run_id])


def test_a_parked_schedule_rests_whatever_its_row_holds(store: Store) -> None:
    add(store, named("s", buffered_time=60))
    assert store.write(schedules.park_schedule, "s", "cannot be read")
    parked = store.read(schedules.get_schedule, "s", None)
    assert parked is not None
    assert (parked.paused, parked.note, parked.due_time, parked.buffered_time, parked.revision) == (
        True, "cannot be read", None, None, 2,
    )  # fmt: skip
    assert not store.write(schedules.park_schedule, "other", "")


def test_a_deleted_schedule_is_gone_at_once_and_its_rows_in_batches(store: Store) -> None:
    add(store, named("s", buffered_time=60), named("kept"))
    for number in range(5):
        store.write(schedules.record_firing, replace(FIRING, scheduled_time=number))
    assert store.write(schedules.delete_schedule, "s")
    assert not store.write(schedules.delete_schedule, "s")
    assert store.read(schedules.get_schedule, "s", None) is None
    assert store.read(schedules.due_many, 9) == ["kept"]
    assert store.read(schedules.ready_buffered, 9) == []
    assert [row.id for row in store.read(schedules.list_schedules, None, None, 9)] == ["kept"]
    assert [store.write(schedules.delete_some_deleted, 3) for _ in range(4)] == [3, 2, 1, 0]


def test_what_became_of_times_is_deleted_oldest_first(store: Store) -> None:
    add(store)
    for number in range(5):
        store.write(schedules.record_firing, replace(FIRING, scheduled_time=number, create_time=number))
    assert [store.write(schedules.delete_old_firings, 4, 3) for _ in range(3)] == [3, 1, 0]
    assert [each.scheduled_time for each in store.read(schedules.list_firings, "s", 9)] == [4]


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"cron": "* * * * *"}, "cron_or_interval"),
        ({"interval": None}, "cron_or_interval"),
        ({"due_time": None}, "due_with_next"),
        ({"paused": True}, "paused_rests"),
        ({"paused": True, "next_time": None, "due_time": None, "buffered_time": 1}, "paused_rests"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(store: Store, values: dict[str, object], constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        add(store, named("s", **values))
    with pytest.raises(IntegrityError, match="started_has_run"):
        add_and_record(store)


def add_and_record(store: Store) -> None:
    add(store)
    store.write(schedules.record_firing, replace(FIRING, started_run_id=None))
