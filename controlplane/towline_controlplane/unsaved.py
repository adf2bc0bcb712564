"""Rows that a commit has changed in memory and not yet in the database, and as what they are stored there."""

from dataclasses import dataclass, field

from towline_controlplane.engine.view import Decision, View
from towline_controlplane.model import Attempt, Event, Run, Step
from towline_controlplane.store import runs
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.runs import AttemptKey, StepKey, Stored


class SilentChange(Exception):
    """Rows of a run were changed without a line in its history, by which others would notice: a defect."""


@dataclass(slots=True)
class Unsaved:
    """The newest state of each changed row. `stored` holds the rows that were there when they were first changed."""

    created: dict[str, View] = field(default_factory=dict[str, View])
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    steps: dict[StepKey, Step] = field(default_factory=dict[StepKey, Step])
    attempts: dict[AttemptKey, Attempt] = field(default_factory=dict[AttemptKey, Attempt])
    events: list[Event] = field(default_factory=list[Event])
    _stored_runs: dict[str, Run] = field(default_factory=dict[str, Run])
    _stored_steps: dict[StepKey, Step] = field(default_factory=dict[StepKey, Step])
    _stored_attempts: dict[AttemptKey, Attempt] = field(default_factory=dict[AttemptKey, Attempt])

    def note(self, view: View, decision: Decision) -> None:
        """Takes in a decision that the view has not been moved past yet."""
        run_id = view.run.id
        if run_id not in self.created:
            self._stored_runs.setdefault(run_id, view.run)
            for step in decision.steps:
                self._stored_steps.setdefault((run_id, step.node_id), view.steps[step.node_id])
        for attempt in decision.attempts:
            key = (run_id, attempt.node_id, attempt.number)
            known = view.attempts.get(attempt.node_id)
            if key not in self.attempts and known is not None and known.number == attempt.number:
                self._stored_attempts[key] = known
            self.attempts[key] = attempt
        self.runs[run_id] = decision.run
        for step in decision.steps:
            self.steps[run_id, step.node_id] = step
        self.events.extend(decision.events)

    def save(self, tx: Transaction) -> None:
        """Writes each row once."""
        self._check_history()
        created = self.created.values()
        new_runs, new_steps = [v.run for v in created], [step for v in created for step in v.steps.values()]
        runs.insert_runs(tx, new_runs, new_steps, [event for event in self.events if event.run_id in self.created])
        runs.save_changes(
            tx,
            [run for run_id, run in self.runs.items() if run_id not in self.created],
            [step for (run_id, _), step in self.steps.items() if run_id not in self.created],
            self.attempts.values(),
            [event for event in self.events if event.run_id not in self.created],
            Stored(self._stored_runs, self._stored_steps, self._stored_attempts),
        )

    def _check_history(self) -> None:
        told = {event.run_id for event in self.events}
        changed = {run_id for run_id, *_ in (*self.steps, *self.attempts)}
        changed |= {run_id for run_id, run in self.runs.items() if run != self._stored_runs.get(run_id)}
        if silent := changed - told:
            raise SilentChange(f"runs changed without an event: {sorted(silent)}")
