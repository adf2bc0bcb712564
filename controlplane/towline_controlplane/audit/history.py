"""Replays the history of a run and compares where it leads with the rows (I15, I16). Pure.

Two literal tables say where each kind of line may stand and where it leads to. What a line does beside that, such as
closing the gate of a pause, is written down in the replay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from towline_controlplane.audit.findings import Findings, RunRows
from towline_controlplane.engine.graph import Dag
from towline_controlplane.engine.transitions import ATTEMPT_TERMINAL, RUN, RUN_TERMINAL, STEP_TERMINAL
from towline_controlplane.model import Attempt, AttemptState, Event, RunState, StepState
from towline_controlplane.model import EventType as E
from towline_controlplane.model import StepState as S

RUN_LINES: Mapping[E, RunState | None] = {
    E.RUN_CREATED: RunState.PENDING,
    E.RUN_STARTED: None,
    E.RUN_PAUSED: RunState.PAUSED,
    E.RUN_RESUMED: RunState.RUNNING,
    E.RUN_CANCEL_REQUESTED: None,
    E.RUN_SUCCEEDED: RunState.SUCCEEDED,
    E.RUN_FAILED: RunState.FAILED,
    E.RUN_CANCELLED: RunState.CANCELLED,
    E.RUN_TIMED_OUT: RunState.TIMED_OUT,
    E.RUN_QUEUED: None,
    E.RUN_ADMITTED: None,
    E.RUN_DEADLINE_REACHED: None,
    E.RUN_RETRIED: RunState.PENDING,
    E.RUN_FROZEN: None,
    E.RUN_THAWED: None,
}
"""Where a line leads the run; None: nowhere by itself."""

_OPEN = frozenset(S) - STEP_TERMINAL
_IN_TIME = frozenset({S.READY, S.LEASED, S.SUCCEEDED})
"""In these the step waits for its time or has waited for it; what a loss has ended keeps the time of its last retry."""

STEP_LINES: Mapping[E, tuple[frozenset[S], S]] = {
    E.STEP_READY: (frozenset({S.WAITING}), S.READY),
    E.STEP_OFFERED: (frozenset({S.READY}), S.LEASED),
    E.STEP_STARTED: (frozenset({S.LEASED}), S.LEASED),
    E.STEP_OFFER_EXPIRED: (frozenset({S.LEASED}), S.READY),
    E.STEP_ATTEMPT_FAILED: (frozenset({S.LEASED}), S.LEASED),
    # An offer of an UNSAFE step that has expired counts as lost; a step whose rerun is within its budget is READY.
    E.STEP_ATTEMPT_LOST: (frozenset({S.LEASED, S.READY}), S.READY),
    E.STEP_RETRY_SCHEDULED: (frozenset({S.LEASED}), S.READY),
    E.STEP_SUCCEEDED: (frozenset({S.LEASED}), S.SUCCEEDED),
    E.STEP_FAILED: (frozenset({S.WAITING, S.LEASED, S.READY}), S.FAILED),
    E.STEP_SKIPPED: (frozenset({S.WAITING}), S.SKIPPED),
    E.STEP_CANCELLED: (_OPEN, S.CANCELLED),
    E.STEP_TIMED_OUT: (frozenset({S.READY, S.LEASED}), S.TIMED_OUT),
    E.STEP_PARKED: (frozenset({S.READY}), S.PARKED),
    E.STEP_RESET: (STEP_TERMINAL, S.WAITING),
}
"""In which states of its step a line may stand, and which it leads to."""

_A = AttemptState
_ATTEMPT_LINES: Mapping[E, frozenset[AttemptState]] = {
    E.STEP_OFFERED: frozenset({_A.OFFERED}),
    E.STEP_STARTED: frozenset({_A.RUNNING}),
    E.STEP_ATTEMPT_FAILED: frozenset({_A.FAILED, _A.TIMED_OUT}),
    E.STEP_ATTEMPT_LOST: frozenset({_A.LOST}),
    E.STEP_SUCCEEDED: frozenset({_A.SUCCEEDED}),
}
_OFFERED = _ATTEMPT_LINES[E.STEP_OFFERED]
_NOT_ENDED = frozenset(AttemptState) - ATTEMPT_TERMINAL


@dataclass(slots=True)
class _Step:
    state: StepState = S.WAITING
    epoch: int = 0
    not_before: int = 0
    agent_id: object = None
    attempt_base: int = 0
    attempts: dict[int, frozenset[AttemptState]] = field(default_factory=dict[int, frozenset[AttemptState]])
    """What each attempt may be."""


@dataclass(slots=True)
class _Replay:
    """What the lines so far make of the run."""

    dag: Dag
    findings: Findings
    state: RunState | None = None
    cancelled: bool = False
    overdue: bool = False
    admitted: bool = True
    frozen: bool = False
    retries: int = 0
    failed_steps: int = 0
    steps: dict[str, _Step] = field(default_factory=dict[str, _Step])

    def take(self, event: Event) -> None:
        """Moves the run and the step of a line as the line says."""
        if event.type in RUN_LINES:
            self._take_run_line(event)
        elif event.node_id in self.steps:
            self._take_step_line(event, self.steps[event.node_id])
        else:
            self.findings.equal("I16", f"step that line {event.sequence} names", "a step", event.node_id)

    def _take_run_line(self, event: Event) -> None:
        starts = event.type is E.RUN_STARTED and self.state is RunState.PENDING
        target = RunState.RUNNING if starts else RUN_LINES[event.type]
        self._expect(_may_follow(event.type, target, self.state), event, self.state)
        _RUN_EFFECTS.get(event.type, _no_effect_on_run)(self)
        self.state = target or self.state
        self.frozen = self.frozen and self.state is RunState.PAUSED and not self.cancelled

    def _take_step_line(self, event: Event, step: _Step) -> None:
        allowed, target = STEP_LINES[event.type]
        if self.state in RUN_TERMINAL:
            self.findings.equal("I6", "lines after the end of the run", "none", event.type, event.node_id)
        self._expect(step.state in allowed, event, step.state)
        _STEP_EFFECTS.get(event.type, _no_effect_on_step)(self, event, step)
        self._count_failure(event, target)
        step.state = target
        ends_as = _ATTEMPT_LINES.get(event.type)
        if ends_as is not None:
            step.attempts[event.attempt] = ends_as
        elif target in STEP_TERMINAL and step.attempts.get(event.attempt, frozenset()) & _NOT_ENDED:
            step.attempts[event.attempt] = frozenset({_A.CANCELLED})

    def _count_failure(self, event: Event, target: StepState) -> None:
        if target is S.CANCELLED:
            self.failed_steps += not self.cancelled
        elif target in (S.FAILED, S.TIMED_OUT):
            self.failed_steps += not self.dag.handles_failure[self.dag.by_id[event.node_id]]

    def _expect(self, fits: bool, event: Event, state: object) -> None:
        if not fits:
            ended = state in STEP_TERMINAL or state in RUN_TERMINAL
            what = f"line {event.sequence} when {state}"
            self.findings.equal("I1" if ended else "I16", what, "what can follow", event.type, event.node_id)


def check_history(rows: RunRows, findings: Findings) -> None:
    """The lines are numbered without a gap (I15), each may follow the others, and they lead to the rows (I16)."""
    numbers = [event.sequence for event in rows.events]
    if numbers != list(range(1, rows.run.event_count + 1)):
        gap = next((i for i, number in enumerate(numbers, 1) if number != i), len(numbers) + 1)
        found = numbers[gap - 1] if gap <= len(numbers) else f"the end at {len(numbers)}"
        findings.equal("I15", f"line {gap} of {rows.run.event_count}", gap, found)
        return
    replay = _Replay(rows.dag, findings, steps={node_id: _Step() for node_id in rows.steps})
    for event in rows.events:
        replay.take(event)
    findings.equal("I16", "state by its history", replay.state, rows.run.state)
    findings.equal("I16", "cancel_requested by its history", replay.cancelled, rows.run.cancel_requested)
    findings.equal("I16", "deadline_reached by its history", replay.overdue, rows.run.deadline_reached)
    findings.equal("I16", "retries by its history", replay.retries, rows.run.retries)
    findings.equal("I16", "admitted by its history", replay.admitted, rows.run.admitted)
    findings.equal("I11", "frozen by its history", replay.frozen, rows.run.frozen)
    findings.equal("I6", "failed_steps by its history", replay.failed_steps, rows.run.failed_steps)
    for node_id, known in replay.steps.items():
        _compare_step(rows, node_id, known, findings)


def _compare_step(rows: RunRows, node_id: str, known: _Step, findings: Findings) -> None:
    step = rows.steps[node_id]
    findings.equal("I16", "state by its history", known.state, step.state, node_id)
    findings.equal("I3", "epoch by its history", known.epoch, step.epoch, node_id)
    findings.equal("I4", "attempt_base by its history", known.attempt_base, step.attempt_base, node_id)
    if step.state in _IN_TIME:
        findings.equal("I13", "not_before by its history", known.not_before, step.not_before, node_id)
    own: dict[int, Attempt] = {attempt.number: attempt for attempt in rows.attempts.get(node_id, ())}
    findings.equal("I4", "attempts by its history", sorted(known.attempts), sorted(own), node_id)
    for number, may_be in known.attempts.items():
        if number in own and own[number].state not in may_be:
            expected = " or ".join(sorted(may_be))
            findings.equal("I16", f"attempt {number} by its history", expected, own[number].state, node_id)


def _offered(replay: _Replay, event: Event, step: _Step) -> None:
    """The gates are open (I11, I12, I20), the time has come (I13), the epoch rises (I3), the number goes on (I4)."""
    findings, node_id, line = replay.findings, event.node_id, f"line {event.sequence}, a hand-out"
    paused = replay.state is RunState.PAUSED
    findings.equal("I11", f"{line}: the run is paused", expected=False, found=paused, node_id=node_id)
    findings.equal("I12", f"{line}: a cancel came before", expected=False, found=replay.cancelled, node_id=node_id)
    findings.equal("I20", f"{line}: the run is admitted", expected=True, found=replay.admitted, node_id=node_id)
    findings.at_least("I13", f"{line}: time", step.not_before, event.time, node_id)
    findings.equal("I3", f"{line}: epoch", step.epoch + 1, event.details.get("epoch"), node_id)
    newest = max(step.attempts, default=0)
    number = newest if step.attempts.get(newest) == _OFFERED else newest + 1
    findings.equal("I4", f"{line}: attempt", number, event.attempt, node_id)
    step.epoch += 1
    step.agent_id = event.details.get("agentId")


def _started(replay: _Replay, event: Event, step: _Step) -> None:
    """Only the holder of the offer starts it (I2)."""
    holder = event.details.get("agentId")
    replay.findings.equal("I2", f"line {event.sequence}: agent", step.agent_id, holder, event.node_id)


def _available_at_once(_replay: _Replay, _event: Event, step: _Step) -> None:
    step.not_before = 0


def _reset(_replay: _Replay, _event: Event, step: _Step) -> None:
    step.not_before, step.agent_id = 0, None
    step.attempt_base = max(step.attempts, default=0)


def _available_later(_replay: _Replay, event: Event, step: _Step) -> None:
    delay: Any = event.details.get("delayMs")
    step.not_before = 0 if delay is None else event.time + delay * 1000


def _no_effect_on_step(_replay: _Replay, _event: Event, _step: _Step) -> None: ...


_STEP_EFFECTS: Mapping[E, Callable[[_Replay, Event, _Step], None]] = {
    E.STEP_READY: _available_at_once,
    E.STEP_OFFERED: _offered,
    E.STEP_STARTED: _started,
    E.STEP_OFFER_EXPIRED: _available_later,
    E.STEP_ATTEMPT_LOST: _available_at_once,
    E.STEP_RETRY_SCHEDULED: _available_later,
    E.STEP_RESET: _reset,
}


def _may_follow(kind: E, target: RunState | None, state: RunState | None) -> bool:
    if state is None or state in RUN_TERMINAL:
        return kind is (E.RUN_CREATED if state is None else E.RUN_RETRIED)
    return target is None or target in RUN[state]


def _cancel(replay: _Replay) -> None:
    replay.cancelled = True


def _close(replay: _Replay) -> None:
    replay.admitted = False


def _admit(replay: _Replay) -> None:
    replay.admitted = True


def _time_out(replay: _Replay) -> None:
    replay.cancelled = replay.overdue = True


def _begin_again(replay: _Replay) -> None:
    replay.cancelled, replay.overdue, replay.admitted, replay.failed_steps = False, False, True, 0
    replay.retries += 1


def _freeze(replay: _Replay) -> None:
    replay.frozen = True


def _thaw(replay: _Replay) -> None:
    replay.frozen = False


def _no_effect_on_run(_replay: _Replay) -> None: ...


_RUN_EFFECTS: Mapping[E, Callable[[_Replay], None]] = {
    E.RUN_CANCEL_REQUESTED: _cancel,
    E.RUN_DEADLINE_REACHED: _time_out,
    E.RUN_QUEUED: _close,
    E.RUN_ADMITTED: _admit,
    E.RUN_RETRIED: _begin_again,
    E.RUN_FROZEN: _freeze,
    E.RUN_THAWED: _thaw,
}
