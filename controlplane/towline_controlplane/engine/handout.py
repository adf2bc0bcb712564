"""Decides how a READY step is handed to an agent: the next epoch, the attempt it carries, the line in the history."""

import hashlib
from dataclasses import dataclass

from towline_controlplane.engine import transitions
from towline_controlplane.engine.view import Decision
from towline_controlplane.frozen import replace
from towline_controlplane.model import Attempt, AttemptState, Event, EventType, Run, Step, StepState


@dataclass(frozen=True, slots=True)
class Holder:
    """The agent that a step goes to, the hash of the token it will present, and when the offer lapses (µs)."""

    agent_id: str
    session_id: str
    token_hash: str
    offer_expire_time: int
    memory_limit_mb: int = 0
    """What the attempt is allowed."""
    weight: int = 1
    """Slots that it takes."""


@dataclass(frozen=True, slots=True)
class Handout:
    """The rows after a hand-out."""

    run: Run
    step: Step
    attempt: Attempt
    event: Event

    @property
    def decision(self) -> Decision:
        """The same as a decision on the run."""
        return Decision(self.run, (self.step,), (self.attempt,), (self.event,))


def hand_out(run: Run, step: Step, holder: Holder, now: int) -> Handout:
    """Gives a READY step to `holder`: the epoch rises, earlier holders of the step are fenced off."""
    number = step.next_attempt
    leased = replace(
        step,
        state=transitions.check(transitions.STEP, step.state, StepState.LEASED),
        attempt=number,
        epoch=step.epoch + 1,
        agent_id=holder.agent_id,
    )
    attempt = Attempt(
        run_id=run.id,
        node_id=step.node_id,
        number=number,
        execution_key=execution_key(run.id, step.node_id, number),
        state=AttemptState.OFFERED,
        epoch=leased.epoch,
        agent_id=holder.agent_id,
        session_id=holder.session_id,
        token_hash=holder.token_hash,
        create_time=now,
        offer_expire_time=holder.offer_expire_time,
        memory_limit_mb=holder.memory_limit_mb,
        weight=holder.weight,
    )
    counted = replace(run, event_count=run.event_count + 1)
    details = {"agentId": holder.agent_id, "epoch": leased.epoch}
    event = Event(run.id, counted.event_count, now, EventType.STEP_OFFERED, step.node_id, number, details)
    return Handout(counted, leased, attempt, event)


def execution_key(run_id: str, node_id: str, number: int) -> str:
    """Names the attempt `number` (from 1) of a step: SHA256(runId:nodeId:retryCount) in hex."""
    return hashlib.sha256(f"{run_id}:{node_id}:{number - 1}".encode()).hexdigest()
