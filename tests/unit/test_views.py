"""What is remembered of runs between commits: bounded, and only as long as it is current."""

from dataclasses import replace
from typing import Any

import pytest
from engine_driver import Driver

from towline_controlplane.engine.commands import Outcome
from towline_controlplane.engine.view import View
from towline_controlplane.frozen import replace as changed
from towline_controlplane.model import RunState
from towline_controlplane.views import Views, forget_bulk

CHAIN = {"nodes": [{"id": "a", "type": "T"}, {"id": "b", "type": "T"}], "edges": [{"from": "a", "to": "b"}]}


def a_view(run_id: str = "run-1", **fields: Any) -> View:
    driver = Driver(CHAIN)
    run = changed(driver.run, id=run_id, **fields)
    return View(driver.dag, run, None, dict(driver.steps))


def test_a_view_is_taken_once() -> None:
    views, view = Views(), a_view()
    views.keep([view])
    assert views.take("run-1", view.run.event_count) is view
    assert views.take("run-1", view.run.event_count) is None


@pytest.mark.parametrize("ahead", [-1, 1])
def test_a_view_of_another_count_of_events_is_forgotten(ahead: int) -> None:
    views, view = Views(), a_view()
    views.keep([view])
    assert views.take("run-1", view.run.event_count + ahead) is None
    assert views.take("run-1", view.run.event_count) is None


def test_the_views_touched_longest_ago_make_room() -> None:
    views = Views(max_steps=5)
    kept = {run_id: a_view(run_id) for run_id in ("run-1", "run-2", "run-3")}
    views.keep([kept["run-1"], kept["run-2"]])
    views.keep([kept["run-1"]])
    views.keep([kept["run-3"]])
    found = [run_id for run_id, view in kept.items() if views.take(run_id, view.run.event_count)]
    assert found == ["run-1", "run-3"]


def test_a_view_that_has_grown_counts_as_large_as_it_is() -> None:
    views = Views(max_steps=3)
    growing, other = a_view("run-1"), a_view("run-2")
    more = dict(growing.steps)
    growing.steps.clear()
    views.keep([growing, other])
    growing.steps.update(more)
    views.keep([growing])
    assert views.take("run-2", other.run.event_count) is None
    assert views.take("run-1", growing.run.event_count) is growing


@pytest.mark.parametrize("fields", [{"state": RunState.SUCCEEDED}, {"input": '"' + "x" * 2_000 + '"'}])
def test_runs_that_have_ended_or_are_large_are_not_remembered(fields: dict[str, Any]) -> None:
    views, view = Views(), a_view(**fields)
    views.keep([view])
    assert views.take("run-1", view.run.event_count) is None


def test_of_a_step_its_ended_attempt_and_what_is_large_is_forgotten() -> None:
    driver = Driver(CHAIN)
    driver.hand_out("a")
    driver.end("a", Outcome.SUCCEEDED, output={"text": "small"})
    view = View(driver.dag, driver.run, None, dict(driver.steps), {"a": driver.newest("a")}, {"a": {"text": "small"}})
    forget_bulk(view, "a")
    assert (list(view.steps), view.attempts, list(view.outputs)) == (["a", "b"], {}, ["a"])
    view.steps["a"] = replace(view.steps["a"], output='"' + "x" * 2_000 + '"')
    forget_bulk(view, "a")
    assert (list(view.steps), view.outputs) == (["b"], {})
