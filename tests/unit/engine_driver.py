"""One run in memory, driven through the engine as the control plane does it.

Each command sees only the rows that it may load, then what ended is propagated in waves. Rows are checked as they are
written, against rules that hold at every commit whatever the workflow is.
"""

import itertools
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from towline_controlplane.engine import commands, transitions
from towline_controlplane.engine.advance import advance
from towline_controlplane.engine.commands import Command, Outcome, Propagate
from towline_controlplane.engine.creation import RunRequest, create_run
from towline_controlplane.engine.graph import Dag, compile_dag
from towline_controlplane.engine.handout import Holder, hand_out
from towline_controlplane.engine.transitions import ATTEMPT, ATTEMPT_TERMINAL, RUN, RUN_TERMINAL, STEP, STEP_TERMINAL
from towline_controlplane.engine.view import Decision, View, references, successors
from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.model import (
    Attempt,
    AttemptState,
    Event,
    EventType,
    Failure,
    FailureClass,
    Run,
    RunState,
    Step,
    StepState,
)

BUSY = Failure(FailureClass.TRANSIENT, "BUSY", "the service is busy")
BROKEN = Failure(FailureClass.PERMANENT, "BROKEN", "the config is wrong")
HUNGRY = Failure(FailureClass.PERMANENT, "MEMORY_LIMIT", "used more memory than allowed")
LEFT = Failure(FailureClass.TRANSIENT, "AGENT_LOST", "the agent was restarted")
SLOW = Failure(FailureClass.TRANSIENT, "TIMEOUT", "the attempt took too long")


MEMORY = 100
"""What a step is allowed at first, in MiB."""

STEP_COMMANDS = (
    commands.ConfirmStart | commands.EndAttempt | commands.ExpireOffer | commands.LoseAttempt | commands.ExpireQueueWait
)


class Driver:
    """A run: its rows, and what can happen to it. `steps` are by node id, `attempts` by node id and number."""

    def __init__(self, document: Mapping[str, Any], run_input: object = None, jitter: float = 0.5) -> None:
        self.dag: Dag = compile_dag(document)
        self.now = 1_000_000
        self.jitter = jitter
        self.run_input = run_input
        self.events: list[Event] = []
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self.waves = 0
        self._checked: tuple[object, int] = (None, 0)
        request = RunRequest(
            *("run-1", "workflow-1", "version-1", "owner-1", json.dumps(run_input), run_input, 0),
            labels={},
            concurrency_group="group-1" if self.dag.policies.concurrency else None,
        )
        view, decision = create_run(self.dag, request, self.now)
        self.run = view.run
        self.steps = dict(view.steps)
        view.apply(decision)
        self._write(decision)
        self._propagate(view, decision.ended)
        self.check()

    def state(self, node: str) -> StepState:
        return self.steps[node].state

    def states(self) -> dict[str, str]:
        return {node: step.state.value for node, step in self.steps.items()}

    def newest(self, node: str) -> Attempt:
        return self.attempts[node, self.steps[node].attempt]

    def kinds(self) -> list[EventType]:
        return [event.type for event in self.events]

    def hand_out(self, node: str) -> Attempt:
        self.now += 1_000
        step = self.steps[node]
        memory_mb = step.memory_limit_mb or MEMORY
        holder = Holder("agent-1", "session-1", f"hash-{step.epoch + 1}", self.now + 5_000_000, memory_mb)
        handout = hand_out(self.run, step, holder, self.now)
        assert handout.step.epoch > step.epoch
        self._write(Decision(handout.run, (handout.step,), (handout.attempt,), (handout.event,)))
        self.check()
        return handout.attempt

    def do(self, *batch: Command) -> None:
        """Decides the commands one after the other, then propagates once: a group commit."""
        self.now += 1_000
        views = View(self.dag, self.run, self.run_input)
        for command in batch:
            self._load(views, command)
        ended: list[str] = []
        for command in batch:
            ended.extend(self._decide(views, command).ended)
        self._propagate(views, tuple(ended))
        self.check()

    def start(self, node: str) -> None:
        self.do(commands.ConfirmStart(node))

    def end(self, node: str, outcome: Outcome, failure: Failure | None = None, output: object = None) -> None:
        self.do(end(node, outcome, failure, output))

    def succeed(self, node: str, output: object = None) -> None:
        """Hands out the step and reports its success."""
        self.hand_out(node)
        self.end(node, Outcome.SUCCEEDED, output=output)

    def fail(self, node: str, failure: Failure = BROKEN) -> None:
        """Hands out the step and reports its failure."""
        self.hand_out(node)
        self.end(node, Outcome.FAILED, failure)

    def lose(self, node: str) -> None:
        self.do(commands.LoseAttempt(node, "no sign of the agent for 30 s"))

    def _load(self, view: View, command: Command) -> None:
        if isinstance(command, STEP_COMMANDS):
            loaded = [self.steps[command.node_id]]
        elif isinstance(command, commands.Retry):
            loaded = list(self.steps.values())
            self._see_outputs(view, self.dag.referenced, loaded)
        else:
            loaded = [step for step in self.steps.values() if step.state not in STEP_TERMINAL]
        view.steps.update((step.node_id, step) for step in loaded)
        view.attempts.update((step.node_id, self.newest(step.node_id)) for step in loaded if step.attempt)

    def _propagate(self, view: View, ended: tuple[str, ...]) -> None:
        while ended and view.run.state not in RUN_TERMINAL:
            self.waves += 1
            referred = references(self.dag, ended)
            for node in successors(self.dag, ended) | referred:
                view.steps.setdefault(node, self.steps[node])
            self._see_outputs(view, referred, self.steps.values())
            ended = self._decide(view, Propagate(ended)).ended
        if view.run.open_steps == 0 and view.run.state not in RUN_TERMINAL:
            wanted = self.dag.policies.references
            view.steps.update((node, self.steps[node]) for node in wanted)
            self._see_outputs(view, wanted, self.steps.values())
            self._decide(view, commands.EndRun())

    def _decide(self, view: View, command: Command) -> Decision:
        decision = advance(view, command, self.now, self.jitter)
        view.apply(decision)
        self._write(decision)
        return decision

    def _see_outputs(self, view: View, wanted: Collection[str], steps: Iterable[Step]) -> None:
        ended = [step for step in steps if step.node_id in wanted and step.state is StepState.SUCCEEDED]
        view.outputs.update((step.node_id, json.loads(step.output or "null")) for step in ended)

    def _write(self, decision: Decision) -> None:
        retried = decision.run.retries > self.run.retries
        _check_change(_with(RUN, transitions.RUN_RETRY if retried else {}), self.run.state, decision.run.state)
        self.run = decision.run
        for step in decision.steps:
            old = self.steps[step.node_id]
            assert retried or old.state not in STEP_TERMINAL, "I6: a step that has ended was changed"
            _check_change(_with(STEP, transitions.STEP_RETRY if retried else {}), old.state, step.state)
            assert step.epoch >= old.epoch
            self.steps[step.node_id] = step
        for attempt in decision.attempts:
            old_attempt = self.attempts.get((attempt.node_id, attempt.number))
            if old_attempt is not None:
                assert old_attempt.state not in ATTEMPT_TERMINAL, "I1: an attempt that has ended was changed"
                _check_change(ATTEMPT, old_attempt.state, attempt.state)
            self.attempts[attempt.node_id, attempt.number] = attempt
        self.events.extend(decision.events)

    def check(self) -> None:
        """Checks what holds of every run at every commit."""
        still_open = [step for step in self.steps.values() if step.state not in STEP_TERMINAL]
        assert self.run.open_steps == len(still_open)
        assert (self.run.state in RUN_TERMINAL) == (not still_open), "I6"
        assert [event.sequence for event in self.events] == list(range(1, self.run.event_count + 1)), "I15"
        self._check_events()
        self._check_nothing_is_silent()
        for node, step in self.steps.items():
            self._check_step(node, step)

    def _check_nothing_is_silent(self) -> None:
        """Views that are remembered are known to be current by the number of the newest event."""
        rows, told = self._checked
        now: object = (self.run, dict(self.steps), dict(self.attempts))
        assert rows == now or self.run.event_count > told, "I16"
        self._checked = (now, self.run.event_count)

    def _check_events(self) -> None:
        kinds = self.kinds()
        assert kinds[0] is EventType.RUN_CREATED
        ends = {EventType(f"RUN_{state}") for state in RUN_TERMINAL}
        followed = itertools.pairwise(kinds)
        assert all(after is EventType.RUN_RETRIED for kind, after in followed if kind in ends)
        assert (kinds[-1] in ends) == (self.run.state in RUN_TERMINAL)
        ended = self._ends_since_reset()
        closed = [step for step in self.steps.values() if step.state in STEP_TERMINAL]
        assert sorted(ended) == sorted((step.node_id, f"STEP_{step.state}") for step in closed), "I16"

    def _ends_since_reset(self) -> list[tuple[str, str]]:
        ends: dict[str, list[str]] = {}
        for event in self.events:
            if event.type is EventType.STEP_RESET:
                assert len(ends.pop(event.node_id)) == 1
            elif _ends_step(event):
                ends.setdefault(event.node_id, []).append(event.type.value)
        return [(node, kind) for node, kinds in ends.items() for kind in kinds]

    def _check_step(self, node: str, step: Step) -> None:
        sources = self.dag.incoming[step.position]
        ended = [s for s in sources if self.steps[self.dag.nodes[s].id].state in STEP_TERMINAL]
        if step.state is StepState.WAITING:
            assert step.open_edges == len(sources) - len(ended)
        if step.attempt > step.attempt_base or step.state in (StepState.READY, StepState.LEASED):
            assert len(ended) == len(sources), "I5"
        assert (step.end_time is not None) == (step.state in STEP_TERMINAL)
        gated = self.run.state is RunState.PAUSED or not self.run.admitted
        assert step.held == (step.state is StepState.READY and gated), "I11"
        own = [attempt for (owner, _), attempt in self.attempts.items() if owner == node]
        assert [attempt.number for attempt in own] == list(range(1, len(own) + 1)), "I4"
        policy = self.dag.nodes[step.position].retry
        assert len(own) - step.attempt_base <= policy.max_attempts + policy.max_lost, "I4"
        assert [attempt.epoch for attempt in own] == sorted({attempt.epoch for attempt in own}), "I3"
        current = own[step.attempt_base :]
        winners = [attempt for attempt in current if attempt.state is AttemptState.SUCCEEDED]
        assert len(winners) == (step.state is StepState.SUCCEEDED), "I7"
        self._check_attempts(step, own)

    def _check_attempts(self, step: Step, own: list[Attempt]) -> None:
        open_attempts = [attempt for attempt in own if attempt.state not in ATTEMPT_TERMINAL]
        assert all((attempt.end_time is None) == (attempt in open_attempts) for attempt in own)
        died = [a for a in own if a.state in ATTEMPT_TERMINAL and a.state is not AttemptState.SUCCEEDED]
        assert [attempt for attempt in own if attempt.evidence is not None] == died, "every death has a cause"
        if step.state is StepState.LEASED:
            assert open_attempts == own[-1:]
            assert own[-1].epoch == step.epoch
        elif step.state is StepState.READY and step.next_attempt == step.attempt:
            assert [attempt.state for attempt in open_attempts] == [AttemptState.OFFERED]
        else:
            assert open_attempts == [], "I12"


def end(
    node: str,
    outcome: Outcome,
    failure: Failure | None = None,
    output: object = None,
    cause: Cause = Cause.PLUGIN_ERROR,
) -> commands.EndAttempt:
    """Returns the report of an attempt's end."""
    evidence = None if outcome is Outcome.SUCCEEDED else Evidence(cause)
    text = json.dumps(output) if outcome is Outcome.SUCCEEDED else None
    return commands.EndAttempt(
        node, outcome, digest=f"{outcome}:{text}", output=text, failure=failure, evidence=evidence
    )


def _ends_step(event: Event) -> bool:
    return event.type.value in {f"STEP_{state}" for state in STEP_TERMINAL}


def _with(table: Mapping[Any, frozenset[Any]], more: Mapping[Any, frozenset[Any]]) -> dict[Any, frozenset[Any]]:
    return {state: after | more.get(state, frozenset()) for state, after in table.items()}


State = RunState | StepState | AttemptState


def _check_change(table: Mapping[Any, frozenset[Any]], old: State, new: State) -> None:
    """One commit may take several transitions; each of them must be in the table."""
    reached = {old}
    while more := {after for state in reached for after in table[state]} - reached:
        reached |= more
    assert new in reached


def run_of(run: Run) -> tuple[RunState, int, int]:
    """Returns the part of a run that a test compares."""
    return run.state, run.open_steps, run.failed_steps
