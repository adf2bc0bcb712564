"""The rows of one decision while it is being made: every change of state goes through the transition tables here.

A draft lies over a view and never touches it. It keeps the counters of the run in step with the states of its steps,
numbers the events, and remembers what ended.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from towline_controlplane.engine import commands, placement, transitions
from towline_controlplane.engine.nodes import Node
from towline_controlplane.engine.view import Decision, View
from towline_controlplane.evidence import Evidence
from towline_controlplane.frozen import replace
from towline_controlplane.model import (
    Attempt,
    AttemptState,
    Event,
    EventType,
    Failure,
    Output,
    RunState,
    Step,
    StepState,
    Usage,
)
from towline_dag.expressions import Scope, run_in_scope

_STEP_ENDED: dict[StepState, EventType] = {
    StepState.SUCCEEDED: EventType.STEP_SUCCEEDED,
    StepState.FAILED: EventType.STEP_FAILED,
    StepState.SKIPPED: EventType.STEP_SKIPPED,
    StepState.CANCELLED: EventType.STEP_CANCELLED,
    StepState.TIMED_OUT: EventType.STEP_TIMED_OUT,
}

_RUN_ENDED: dict[RunState, EventType] = {
    RunState.SUCCEEDED: EventType.RUN_SUCCEEDED,
    RunState.FAILED: EventType.RUN_FAILED,
    RunState.CANCELLED: EventType.RUN_CANCELLED,
    RunState.TIMED_OUT: EventType.RUN_TIMED_OUT,
}


class Draft:
    """Changes on top of a view at one moment `now` (µs)."""

    def __init__(self, view: View, now: int) -> None:
        self.view = view
        self.dag = view.dag
        self.run = view.run
        self._now = now
        self._event_count = view.run.event_count
        self._steps: dict[str, Step] = {}
        self._attempts: dict[str, Attempt] = {}
        self._events: list[Event] = []
        self._ended: list[str] = []

    def decision(self) -> Decision:
        """Ends the run if nothing of it is open and no output is to be worked out, and returns all that changed."""
        if self.run.open_steps == 0 and self.dag.policies.output is None:
            self.end_run()
        return Decision(
            run=replace(self.run, event_count=self._event_count),
            steps=tuple(self._steps.values()),
            attempts=tuple(self._attempts.values()),
            events=tuple(self._events),
            ended=tuple(self._ended),
        )

    def step(self, node_id: str) -> Step:
        """Returns the step as the draft has it."""
        return self._steps.get(node_id) or self.view.steps[node_id]

    def node(self, node_id: str) -> Node:
        """Returns the node of a step."""
        return self.dag.nodes[self.dag.by_id[node_id]]

    def open_steps(self) -> Iterator[Step]:
        """Yields the steps of the view that have not ended, in the order of the DAG."""
        current = (self.step(node_id) for node_id in self.view.steps)
        still_open = [step for step in current if step.state not in transitions.STEP_TERMINAL]
        yield from sorted(still_open, key=lambda step: step.position)

    def scope(self, references: Iterable[str]) -> Scope:
        """Returns what an expression that refers to these nodes sees."""
        nodes = {
            node_id: {"state": self.step(node_id).state.value, "output": self.view.outputs.get(node_id)}
            for node_id in references
        }
        run = run_in_scope(self.run.id, self.run.workflow_id, self.run.scheduled_time)
        withheld = frozenset(node_id for node_id in nodes if self.step(node_id).output_digest is not None)
        return Scope(input=self.view.run_input, run=run, nodes=nodes, withheld=withheld)

    def change(self, node_id: str, **fields: Any) -> Step:
        """Changes fields of a step, the state checked against its table."""
        old = self.step(node_id)
        if "state" in fields:
            transitions.check(transitions.STEP, old.state, fields["state"])
        self._steps[node_id] = new = replace(old, **fields)
        return new

    def record(self, kind: EventType, node_id: str = "", **details: object) -> None:
        """Appends a line to the history, numbered within the run. A Failure among the details becomes plain data."""
        attempt = self.step(node_id).attempt if node_id else 0
        plain = {key: _plain(value) for key, value in details.items() if value is not None}
        self._event_count += 1
        self._events.append(Event(self.run.id, self._event_count, self._now, kind, node_id, attempt, plain))

    def move_run(self, state: RunState) -> None:
        """Changes the state of the run, checked against its table."""
        self.run = replace(self.run, state=transitions.check(transitions.RUN, self.run.state, state))

    def start_attempt(self, node_id: str, elapsed_us: int = 0) -> None:
        """Moves the newest attempt from OFFERED to RUNNING, `elapsed_us` ago; one that runs already stays as it is."""
        attempt = self.attempt(node_id)
        if attempt.state is not AttemptState.OFFERED:
            return
        began = max(attempt.create_time, self._now - max(elapsed_us, 0))
        self._move_attempt(attempt, AttemptState.RUNNING, start_time=began)
        if self.run.start_time is None or self.run.state is RunState.PENDING:
            self.run = replace(self.run, start_time=self.run.start_time or began)
            self.record(EventType.RUN_STARTED)
        if self.run.state is RunState.PENDING:
            self.move_run(RunState.RUNNING)
        step = self.step(node_id)
        self.change(node_id, start_time=step.start_time or began)
        self.record(EventType.STEP_STARTED, node_id, agentId=step.agent_id)

    def end_attempt(
        self,
        node_id: str,
        state: AttemptState,
        failure: Failure | None = None,
        evidence: Evidence | None = None,
        report: "commands.EndAttempt | None" = None,
    ) -> None:
        """Ends the newest attempt; with the digest of its report a repeat of the report is known again."""
        self._move_attempt(
            self.attempt(node_id),
            state,
            end_time=self._now,
            error=failure,
            usage=report.usage if report else Usage(),
            report_digest=report.digest if report else None,
            evidence=evidence,
            sandbox_level=report.sandbox_level if report else None,
        )

    def ready_step(self, node_id: str, config: str | None) -> None:
        """Makes a waiting step dispatchable with its rendered config."""
        self._make_ready(node_id, config=config)
        self.record(EventType.STEP_READY, node_id)

    def offer_again(self, node_id: str, next_attempt: int, delay_ms: int = 0) -> None:
        """Makes a step whose holder is gone dispatchable again, at once or after a delay."""
        not_before = self._now + delay_ms * 1000 if delay_ms else 0
        self._make_ready(node_id, next_attempt=next_attempt, agent_id=None, not_before=not_before)

    def retry_step(self, node_id: str, delay_ms: int, memory_limit_mb: int = 0) -> None:
        """Makes a step whose attempt failed dispatchable again after a delay, with more memory if it is given."""
        step = self.step(node_id)
        raised = self._raised(node_id, memory_limit_mb) if memory_limit_mb else {}
        not_before = self._now + delay_ms * 1000
        self._make_ready(node_id, next_attempt=step.attempt + 1, agent_id=None, not_before=not_before, **raised)
        memory = memory_limit_mb or None
        self.record(EventType.STEP_RETRY_SCHEDULED, node_id, delayMs=delay_ms, memoryLimitMb=memory)

    def _raised(self, node_id: str, memory_limit_mb: int) -> dict[str, object]:
        """A step with another limit waits in another queue, which agents without so much memory pass by."""
        asked = self.node(node_id).requirements.with_memory(memory_limit_mb)
        return {"memory_limit_mb": memory_limit_mb, "queue_id": placement.queue_id(asked)}

    def park_step(self, node_id: str, failure: Failure) -> None:
        """Leaves a step to a person's decision."""
        self.change(node_id, state=StepState.PARKED, error=failure, agent_id=None)
        self.record(EventType.STEP_PARKED, node_id, error=failure)

    def end_step(
        self, node_id: str, state: StepState, failure: Failure | None = None, output: Output | None = None
    ) -> None:
        """Ends a step for good and counts it off the run."""
        stored = output or Output()
        step = self.change(
            node_id,
            state=state,
            error=failure,
            output=stored.text,
            output_digest=stored.digest,
            end_time=self._now,
            held=False,
        )
        self._ended.append(node_id)
        self.run = replace(self.run, open_steps=self.run.open_steps - 1)
        if self._fails_run(step):
            self.run = replace(
                self.run,
                failed_steps=self.run.failed_steps + 1,
                error=self.run.error or _of_step(node_id, failure),
            )
        self.record(_STEP_ENDED[state], node_id, error=failure)

    def gate_ready_steps(self) -> None:
        """Closes or opens the gate of every READY step in the view; their wait for an agent starts anew."""
        for step in self.open_steps():
            if step.state is StepState.READY and step.held != self._is_gated:
                deadline = self._queue_deadline(step.node_id, step.not_before)
                self.change(step.node_id, held=self._is_gated, queue_deadline=deadline)

    @property
    def has_succeeded(self) -> bool:
        """Tells whether the run, with no step open, ends as SUCCEEDED."""
        return not self.run.cancel_requested and self.run.failed_steps == 0

    def end_run(self, output: str | None = None) -> None:
        """Ends the run as its steps have it, unless it has ended."""
        if self.run.state in transitions.RUN_TERMINAL:
            return
        if self.run.deadline_reached:
            self._end_run_as(RunState.TIMED_OUT, self.run.error)
        elif self.run.cancel_requested:
            self._end_run_as(RunState.CANCELLED, None)
        elif self.run.failed_steps:
            self._end_run_as(RunState.FAILED, self.run.error)
        else:
            self.run = replace(self.run, output=output)
            self._end_run_as(RunState.SUCCEEDED, None)

    def fail_run(self, failure: Failure) -> None:
        """Ends a run whose steps have all ended as FAILED."""
        self._end_run_as(RunState.FAILED, failure)

    def reopen_run(self, open_steps: int) -> None:
        """Takes a run that did not succeed out of its end, with fresh limits; it waits for a slot if it needs one."""
        timeout_ms = self.dag.policies.timeout_ms
        self.run = replace(
            self.run,
            state=transitions.check(transitions.RUN_RETRY, self.run.state, RunState.PENDING),
            open_steps=open_steps,
            failed_steps=0,
            cancel_requested=False,
            deadline_reached=False,
            deadline=self._now + timeout_ms * 1000 if timeout_ms else None,
            admitted=self.run.concurrency_group is None,
            retries=self.run.retries + 1,
            end_time=None,
            error=None,
        )
        self.record(EventType.RUN_RETRIED)
        if not self.run.admitted:
            self.record(EventType.RUN_QUEUED)

    def reset_step(self, node_id: str) -> None:
        """Makes a step that has ended WAITING as at first; the numbers of its attempts and its epoch go on."""
        step = self.step(node_id)
        self._steps[node_id] = replace(
            step,
            state=transitions.check(transitions.STEP_RETRY, step.state, StepState.WAITING),
            open_edges=self.dag.in_degree[step.position],
            satisfied_edges=0,
            next_attempt=step.attempt + 1,
            attempt_base=step.attempt,
            memory_limit_mb=0,
            queue_id=self.node(node_id).queue_id,
            failures=0,
            losses=0,
            not_before=0,
            queue_deadline=0,
            config=None,
            output=None,
            output_digest=None,
            artifact_count=0,
            error=None,
            agent_id=None,
            start_time=None,
            end_time=None,
        )
        self.record(EventType.STEP_RESET, node_id)

    def _fails_run(self, step: Step) -> bool:
        """A step that its agent cancelled unasked did not do its work, and no edge handles that."""
        if step.state is StepState.CANCELLED:
            return not self.run.cancel_requested
        return step.state in (StepState.FAILED, StepState.TIMED_OUT) and not self.dag.handles_failure[step.position]

    @property
    def _is_gated(self) -> bool:
        return self.run.state is RunState.PAUSED or not self.run.admitted

    def _queue_deadline(self, node_id: str, not_before: int) -> int:
        timeout_ms = self.node(node_id).queue_timeout_ms
        return max(self._now, not_before) + timeout_ms * 1000 if timeout_ms else 0

    def _make_ready(self, node_id: str, not_before: int = 0, **fields: Any) -> None:
        self.change(
            node_id,
            state=StepState.READY,
            held=self._is_gated,
            fair_key=0,
            not_before=not_before,
            queue_deadline=self._queue_deadline(node_id, not_before),
            **fields,
        )

    def attempt(self, node_id: str) -> Attempt:
        """Returns the newest attempt of a step as the draft has it."""
        return self._attempts.get(node_id) or self.view.attempts[node_id]

    def _move_attempt(self, attempt: Attempt, state: AttemptState, **fields: Any) -> None:
        transitions.check(transitions.ATTEMPT, attempt.state, state)
        self._attempts[attempt.node_id] = replace(attempt, state=state, **fields)

    def _end_run_as(self, state: RunState, error: Failure | None) -> None:
        self.move_run(state)
        self.run = replace(self.run, end_time=self._now, error=error, frozen=False)
        self.record(_RUN_ENDED[state], error=error)


def _of_step(node_id: str, failure: Failure | None) -> Failure | None:
    if failure is None:
        return None
    return replace(failure, message=f"step {node_id!r} failed: {failure.message}")


def _plain(value: object) -> object:
    if isinstance(value, Failure):
        named = asdict(value)
        named["class"] = named.pop("kind")
        return named
    return value
