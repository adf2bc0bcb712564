"""Decides what a command does to a run. One total function per command; nothing here loads, stores or waits.

`advance` answers with the rows as they are to be. Ending a node decides nothing about its successors yet: the caller
loads them, applies `Propagate`, and repeats until nothing ends. So a command costs the out-degree of what it ends.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from towline_controlplane.engine import commands
from towline_controlplane.engine.draft import Draft
from towline_controlplane.engine.edges import decide_edge, open_or_skip
from towline_controlplane.engine.rerun import nodes_to_rerun
from towline_controlplane.engine.retry import backoff_ms, may_rerun, may_retry, more_memory
from towline_controlplane.engine.view import Decision, View
from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.model import AttemptState, EventType, Failure, FailureClass, Output, RunState, Step, StepState
from towline_dag.choices import SideEffects
from towline_dag.expressions import ExpressionError

_LEFT = Failure(FailureClass.TRANSIENT, "AGENT_LOST", "the agent that ran the attempt went away")
_OVERDUE = Failure(FailureClass.TRANSIENT, "TIMEOUT", "the run took longer than its workflow allows")
_UNCONFIRMED = Failure(
    FailureClass.TRANSIENT,
    "AGENT_LOST",
    "the agent did not confirm the start in time, but may have started the attempt",
)


def advance(view: View, command: commands.Command, now: int, jitter: float) -> Decision:
    """Returns what `command` does to the run at `now` (µs); `jitter` in [0, 1) spreads the retries.

    The command's step and its newest attempt are in the view; for Propagate the successors, for what steers the whole
    run every open step with its newest attempt. The caller has checked leases and that the run has not ended, for Retry
    that it has, without success.
    """
    draft = Draft(view, now)
    _DECIDERS[type(command)](draft, command, jitter)
    return draft.decision()


def _confirm_start(draft: Draft, command: commands.ConfirmStart, _jitter: float) -> None:
    draft.start_attempt(command.node_id)


def _end_attempt(draft: Draft, command: commands.EndAttempt, jitter: float) -> None:
    draft.start_attempt(command.node_id, command.elapsed_us)
    if command.artifact_count != draft.step(command.node_id).artifact_count:
        draft.change(command.node_id, artifact_count=command.artifact_count)
    if draft.run.cancel_requested:
        _end_as(draft, command, AttemptState.CANCELLED, StepState.CANCELLED)
    elif command.outcome is commands.Outcome.CANCELLED:
        unasked = replace(command, failure=command.failure or _CANCELLED_BY_AGENT)
        _end_as(draft, unasked, AttemptState.CANCELLED, StepState.CANCELLED)
    elif command.outcome is commands.Outcome.SUCCEEDED:
        _end_as(draft, command, AttemptState.SUCCEEDED, StepState.SUCCEEDED)
    elif command.outcome is commands.Outcome.LOST:
        _lose(draft, command.node_id, command.failure or _LEFT, command)
    else:
        _fail_attempt(draft, command, jitter)


def _end_as(draft: Draft, command: commands.EndAttempt, attempt: AttemptState, step: StepState) -> None:
    evidence = None if attempt is AttemptState.SUCCEEDED else _stopped(draft, command.evidence)
    draft.end_attempt(command.node_id, attempt, command.failure, evidence, command)
    output = Output(command.output, command.output_digest) if step is StepState.SUCCEEDED else None
    draft.end_step(command.node_id, step, command.failure, output)


def _fail_attempt(draft: Draft, command: commands.EndAttempt, jitter: float) -> None:
    failure = command.failure or Failure(FailureClass.PERMANENT, "UNKNOWN", "the agent gave no reason")
    timed_out = command.outcome is commands.Outcome.TIMED_OUT
    ended = AttemptState.TIMED_OUT if timed_out else AttemptState.FAILED
    evidence = command.evidence or Evidence(Cause.INTERNAL)
    memory_mb = _more_memory(draft, command.node_id, evidence.cause)
    draft.end_attempt(command.node_id, ended, failure, evidence, command)
    draft.record(EventType.STEP_ATTEMPT_FAILED, command.node_id, error=failure)
    step = draft.change(command.node_id, failures=draft.step(command.node_id).failures + 1)
    policy = draft.node(command.node_id).retry
    enlarged = memory_mb > 0 and step.failures < policy.max_attempts
    if not enlarged and not may_retry(policy, failure, step.failures, evidence.cause):
        draft.end_step(command.node_id, StepState.TIMED_OUT if timed_out else StepState.FAILED, failure)
        return
    delay = command.retry_after_ms
    wait = backoff_ms(policy, step.failures, jitter) if delay is None else delay
    draft.retry_step(command.node_id, wait, memory_mb)


def _more_memory(draft: Draft, node_id: str, cause: Cause) -> int:
    asked, had = draft.step(node_id).memory_limit_mb, draft.attempt(node_id).memory_limit_mb
    return more_memory(draft.node(node_id).retry, cause, asked, had)


def _stopped(draft: Draft, seen: Evidence | None = None) -> Evidence:
    """The evidence of what was stopped with its run, or by its agent alone; what the agent saw of it is kept."""
    cause = Cause.RUN_TIMEOUT if draft.run.deadline_reached else Cause.CANCELLED
    return replace(seen, cause=cause) if seen else Evidence(cause)


def _expire_offer(draft: Draft, command: commands.ExpireOffer, _jitter: float) -> None:
    draft.record(EventType.STEP_OFFER_EXPIRED, command.node_id, agentId=draft.step(command.node_id).agent_id)
    if draft.run.cancel_requested:
        draft.end_attempt(command.node_id, AttemptState.CANCELLED, evidence=_stopped(draft))
        draft.end_step(command.node_id, StepState.CANCELLED)
    elif draft.node(command.node_id).side_effects is SideEffects.UNSAFE:
        _lose(draft, command.node_id, _UNCONFIRMED)
    else:
        draft.offer_again(command.node_id, next_attempt=draft.step(command.node_id).attempt)


def _take_back(draft: Draft, command: commands.TakeBack, _jitter: float) -> None:
    step, failure = draft.step(command.node_id), command.failure
    if draft.run.cancel_requested:
        draft.end_attempt(command.node_id, AttemptState.CANCELLED, evidence=_stopped(draft))
        draft.end_step(command.node_id, StepState.CANCELLED)
    elif failure is not None:
        draft.end_attempt(command.node_id, AttemptState.CANCELLED, failure, Evidence(Cause.INPUTS_UNAVAILABLE))
        draft.end_step(command.node_id, StepState.FAILED, failure)
    else:
        delay = command.delay_ms or None
        draft.record(EventType.STEP_OFFER_EXPIRED, command.node_id, agentId=step.agent_id, delayMs=delay)
        draft.offer_again(command.node_id, step.attempt, command.delay_ms)


def _lose_attempt(draft: Draft, command: commands.LoseAttempt, _jitter: float) -> None:
    failure = replace(_LEFT, cause=command.cause)
    _lose(draft, command.node_id, failure)


def _lose(draft: Draft, node_id: str, failure: Failure, report: commands.EndAttempt | None = None) -> None:
    """Ends an attempt whose agent is gone, or says itself that it had to leave it."""
    node, step = draft.node(node_id), draft.step(node_id)
    evidence = (report.evidence if report else None) or Evidence(Cause.AGENT_LOST)
    draft.end_attempt(node_id, AttemptState.LOST, failure, evidence, report)
    draft.record(EventType.STEP_ATTEMPT_LOST, node_id, error=failure, agentId=step.agent_id)
    step = draft.change(node_id, losses=step.losses + 1)
    if draft.run.cancel_requested:
        draft.end_step(node_id, StepState.CANCELLED)
    elif node.side_effects is SideEffects.UNSAFE:
        draft.park_step(node_id, failure)
    elif may_rerun(node.retry, step.losses):
        draft.offer_again(node_id, next_attempt=step.attempt + 1)
    else:
        draft.end_step(node_id, StepState.FAILED, _lost_too_often(failure, step.losses))


def _lost_too_often(failure: Failure, losses: int) -> Failure:
    message = f"{losses} agents went away while they ran it" if losses > 1 else failure.message
    return replace(failure, message=message)


def _expire_queue_wait(draft: Draft, command: commands.ExpireQueueWait, _jitter: float) -> None:
    step, limit_ms = draft.step(command.node_id), draft.node(command.node_id).queue_timeout_ms
    message = f"no agent took the step within {limit_ms / 1000:g} s"
    failure = Failure(FailureClass.TRANSIENT, Cause.QUEUE_TIMEOUT.value, message, _before_the_wait(step))
    _end_untaken(draft, step, StepState.TIMED_OUT, failure)


def _before_the_wait(step: Step) -> str:
    tries = step.attempt - step.attempt_base
    if step.attempt == step.next_attempt:
        return f"it was offered for attempt {tries}, and the offer was not confirmed"
    return f"it was never handed out after attempt {tries} had ended" if tries else "it was never handed out"


def _admit(draft: Draft, _command: commands.Admit, _jitter: float) -> None:
    draft.run = replace(draft.run, admitted=True)
    draft.record(EventType.RUN_ADMITTED)
    draft.gate_ready_steps()


def _pause(draft: Draft, command: commands.Pause, _jitter: float) -> None:
    if draft.run.cancel_requested:
        return
    if draft.run.state is not RunState.PAUSED:
        draft.move_run(RunState.PAUSED)
        draft.record(EventType.RUN_PAUSED)
        draft.gate_ready_steps()
    if draft.run.frozen is not command.freeze:
        draft.run = replace(draft.run, frozen=command.freeze)
        draft.record(EventType.RUN_FROZEN if command.freeze else EventType.RUN_THAWED)


def _resume(draft: Draft, _command: commands.Resume, _jitter: float) -> None:
    if draft.run.state is not RunState.PAUSED:
        return
    draft.move_run(RunState.RUNNING)
    draft.run = replace(draft.run, frozen=False)
    draft.record(EventType.RUN_RESUMED)
    draft.gate_ready_steps()


def _cancel(draft: Draft, _command: commands.Cancel, _jitter: float) -> None:
    if draft.run.cancel_requested:
        return
    draft.record(EventType.RUN_CANCEL_REQUESTED)
    _stop(draft)


def _reach_deadline(draft: Draft, _command: commands.ReachDeadline, _jitter: float) -> None:
    if draft.run.cancel_requested:
        return
    draft.run = replace(draft.run, deadline_reached=True, error=_OVERDUE)
    draft.record(EventType.RUN_DEADLINE_REACHED)
    _stop(draft)


def _stop(draft: Draft) -> None:
    """Ends every step that no agent holds; the others end when their holders answer or are given up."""
    draft.run = replace(draft.run, cancel_requested=True, frozen=False)
    for step in draft.open_steps():
        if step.state is not StepState.LEASED:
            _end_untaken(draft, step, StepState.CANCELLED)


def _end_untaken(draft: Draft, step: Step, state: StepState, failure: Failure | None = None) -> None:
    if step.state is StepState.READY and step.attempt == step.next_attempt:  # the last offer has lapsed
        evidence = Evidence(Cause.QUEUE_TIMEOUT) if state is StepState.TIMED_OUT else _stopped(draft)
        draft.end_attempt(step.node_id, AttemptState.CANCELLED, evidence=evidence)
    draft.end_step(step.node_id, state, failure)


def _end_run(draft: Draft, _command: commands.EndRun, _jitter: float) -> None:
    mapping = draft.dag.policies.output
    if mapping is None or not draft.has_succeeded:
        draft.end_run()
        return
    try:
        output = mapping.render(draft.scope(mapping.references))
    except ExpressionError as error:
        draft.fail_run(Failure(FailureClass.PERMANENT, "OUTPUT", f"the run's output cannot be rendered: {error}"))
    else:
        draft.end_run(json.dumps(output, ensure_ascii=False, separators=(",", ":")))


def _retry(draft: Draft, _command: commands.Retry, _jitter: float) -> None:
    again = nodes_to_rerun(draft.dag, draft.view.steps)
    draft.reopen_run(len(again))
    for index in again:
        draft.reset_step(draft.dag.nodes[index].id)
    for index in again:
        if draft.dag.in_degree[index] == 0:
            open_or_skip(draft, draft.dag.nodes[index].id)
    for edge in draft.dag.edges:
        if edge.target in again and edge.source not in again:
            decide_edge(draft, edge, draft.step(draft.dag.nodes[edge.source].id))


def _propagate(draft: Draft, command: commands.Propagate, _jitter: float) -> None:
    for node_id in command.ended:
        for edge in draft.dag.outgoing[draft.dag.by_id[node_id]]:
            decide_edge(draft, edge, draft.step(node_id))


_CANCELLED_BY_AGENT = Failure(FailureClass.PERMANENT, "CANCELLED", "the agent stopped the attempt unasked")

_DECIDERS: Mapping[type, Callable[[Draft, Any, float], None]] = {
    commands.ConfirmStart: _confirm_start,
    commands.EndAttempt: _end_attempt,
    commands.ExpireOffer: _expire_offer,
    commands.TakeBack: _take_back,
    commands.LoseAttempt: _lose_attempt,
    commands.ExpireQueueWait: _expire_queue_wait,
    commands.Admit: _admit,
    commands.Pause: _pause,
    commands.Resume: _resume,
    commands.Cancel: _cancel,
    commands.ReachDeadline: _reach_deadline,
    commands.Retry: _retry,
    commands.EndRun: _end_run,
    commands.Propagate: _propagate,
}
