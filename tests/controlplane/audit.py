"""Checks the invariants of a store that can be told from its rows alone."""

from collections import Counter

from rig import Rig

from towline_controlplane.engine.transitions import ATTEMPT_TERMINAL, RUN_TERMINAL, STEP_TERMINAL
from towline_controlplane.model import AttemptState, StepState
from towline_controlplane.store import runs


async def audit(rig: Rig, run_id: str) -> None:
    """Fails with the invariant that does not hold (numbers as in the reliability rules)."""
    run, steps, events = await rig.run(run_id), await rig.steps(run_id), await rig.events(run_id)
    still_open = [step for step in steps.values() if step.state not in STEP_TERMINAL]
    assert run.open_steps == len(still_open)
    assert (run.state in RUN_TERMINAL) == (not still_open), "I6"
    assert [event.sequence for event in events] == list(range(1, run.event_count + 1)), "I15"
    for step in steps.values():
        attempts = await rig.database.read(lambda tx, step=step: runs.list_attempts(tx, run_id, step.node_id))
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1)), "I4"
        assert [a.epoch for a in attempts] == sorted({a.epoch for a in attempts}), "I3"
        winners = [attempt for attempt in attempts if attempt.state is AttemptState.SUCCEEDED]
        assert len(winners) == (step.state is StepState.SUCCEEDED), "I7"
        assert all(attempt.state in ATTEMPT_TERMINAL for attempt in attempts[:-1])
    ended = Counter((event.node_id, event.type) for event in events if event.type.startswith("STEP_S"))
    assert max((n for (_, kind), n in ended.items() if kind == "STEP_SUCCEEDED"), default=0) <= 1, "I1"
