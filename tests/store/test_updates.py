"""Of a changed row only the columns that differ are written."""

from dataclasses import replace

import pytest
from store_samples import Store, a_step, add_run, an_attempt

from towline_controlplane.model import AttemptState
from towline_controlplane.store import runs
from towline_controlplane.store.runs import Stored


def test_of_rows_known_as_stored_only_what_differs_is_written(store: Store) -> None:
    store.write(add_run, steps=(a_step(), a_step(node_id="b", position=1)))
    run, steps = store.read(runs.get_run, "run-1", None), store.read(runs.list_steps, "run-1", -1, 10)
    assert run is not None
    attempt = an_attempt()
    store.write(runs.save_changes, attempts=[attempt])
    known = Stored({run.id: run}, {("run-1", s.node_id): s for s in steps}, {("run-1", "a", 1): attempt})
    # Changed behind the back of the one who knows: a whole row would undo it.
    store.write(
        runs.save_changes,
        [replace(run, failed_steps=3)],
        [replace(steps[0], failures=4)],
        [replace(attempt, agent_id="x")],
    )
    store.write(
        runs.save_changes,
        [replace(run, event_count=9)],
        [replace(steps[0], epoch=5), steps[1]],
        [replace(attempt, state=AttemptState.RUNNING, start_time=7)],
        stored=known,
    )
    after, [first, second] = store.read(runs.get_run, "run-1", None), store.read(runs.list_steps, "run-1", -1, 10)
    assert after == replace(run, failed_steps=3, event_count=9)
    assert (first, second) == (replace(steps[0], failures=4, epoch=5), steps[1])
    [stored_attempt] = store.read(runs.list_attempts, "run-1", "a")
    assert stored_attempt == replace(attempt, agent_id="x", state=AttemptState.RUNNING, start_time=7)


def test_an_attempt_known_as_open_that_has_ended_is_left(store: Store) -> None:
    store.write(add_run)
    attempt = an_attempt()
    store.write(runs.save_changes, attempts=[an_attempt(state=AttemptState.LOST, end_time=9)])
    known = Stored(attempts={("run-1", "a", 1): attempt})
    with pytest.raises(runs.RowMissing):
        store.write(runs.save_changes, attempts=[replace(attempt, session_id="other")], stored=known)
