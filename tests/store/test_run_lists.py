"""Lists of runs: what they are narrowed to, and their orders, page by page."""

from typing import Any

import pytest
from store_samples import Store, add_run

from towline_controlplane.model import RunState
from towline_controlplane.store import retention, run_lists
from towline_controlplane.store.keysets import Order, Place
from towline_controlplane.store.run_lists import BY_END, RunFilter


def test_runs_are_listed_newest_first_page_by_page(store: Store) -> None:
    times = {"run-a": 5, "run-b": 7, "run-c": 5, "run-d": 6, "run-e": 5}
    for run_id, create_time in times.items():
        store.write(add_run, run_id, create_time=create_time)
    seen: list[str] = []
    after = None
    while page := store.read(run_lists.list_runs, RunFilter(), after, 2):
        assert len(page) <= 2
        seen += [run.id for run in page]
        after = (page[-1].create_time, page[-1].id)
    assert seen == ["run-b", "run-d", "run-e", "run-c", "run-a"]


def test_lists_of_runs_are_narrowed_by_owner_workflow_and_state(store: Store) -> None:
    store.write(add_run, "run-1")
    store.write(add_run, "run-2", owner_id="owner-2")
    store.write(add_run, "run-3", workflow_id="workflow-2")
    store.write(add_run, "run-4", state=RunState.PAUSED)

    def ids(narrow: RunFilter) -> list[str]:
        return sorted(run.id for run in store.read(run_lists.list_runs, narrow, None, 10))

    assert ids(RunFilter()) == ["run-1", "run-2", "run-3", "run-4"]
    assert ids(RunFilter(owner_id="owner-1")) == ["run-1", "run-3", "run-4"]
    assert ids(RunFilter(workflow_id="workflow-2")) == ["run-3"]
    assert ids(RunFilter(states=frozenset({RunState.PAUSED}))) == ["run-4"]
    assert ids(RunFilter(states=frozenset({RunState.PAUSED, RunState.RUNNING}))) == ["run-1", "run-2", "run-3", "run-4"]
    assert ids(RunFilter(states=frozenset({RunState.PAUSED, RunState.FAILED}))) == ["run-4"]
    assert ids(RunFilter("owner-1", "workflow-1", frozenset({RunState.RUNNING}))) == ["run-1"]
    assert ids(RunFilter("owner-2", "workflow-2")) == []


def test_lists_of_runs_are_narrowed_by_time_and_labels(store: Store) -> None:
    odd = {"a b": "c'\"\\", "é": ""}
    for number in range(5):
        store.write(add_run, f"run-{number}", create_time=number, labels={"n": str(number), "team": "data", **odd})
    store.write(add_run, "run-5", create_time=5, labels={})

    def numbers(**narrow: Any) -> list[int]:
        return [run.create_time for run in store.read(run_lists.list_runs, RunFilter(**narrow), None, 10)]

    assert numbers(created_after=2) == [5, 4, 3]
    assert numbers(created_before=2) == [1, 0]
    assert numbers(created_after=0, created_before=3) == [2, 1]
    assert numbers(labels={"team": "data"}) == [4, 3, 2, 1, 0]
    assert numbers(labels={"team": "data", "n": "3"}) == [3]
    assert numbers(labels=odd, created_before=2) == [1, 0]
    assert numbers(labels={"n": "30"}) == []
    assert numbers(labels={"data": "team"}) == []


@pytest.mark.parametrize("order", [Order("create_time"), Order(BY_END), Order(BY_END, descending=True)])
def test_runs_are_listed_in_other_orders_page_by_page(store: Store, order: Order) -> None:
    ended = {"run-a": 5, "run-b": 7, "run-c": 5, "run-d": 6, "run-e": 5}
    for number, (run_id, end_time) in enumerate(ended.items()):
        succeeded: Any = {"state": RunState.SUCCEEDED, "end_time": end_time}
        store.write(add_run, run_id, create_time=number % 2, **succeeded)
    store.write(add_run, "run-f", create_time=9)
    store.write(add_run, "run-g", state=RunState.FAILED, end_time=8)
    store.write(retention.hide_runs, ["run-g"])
    seen, after = list[Place](), None
    while page := store.read(run_lists.list_runs, RunFilter("owner-1"), after, 2, order):
        seen += [order.place(run) for run in page]
        after = seen[-1]
    created = [(number % 2, run_id) for number, run_id in enumerate(ended)] + [(9, "run-f")]
    places = [(time, run_id) for run_id, time in ended.items()] if order.column == BY_END else created
    assert seen == sorted(places, reverse=order.descending)
