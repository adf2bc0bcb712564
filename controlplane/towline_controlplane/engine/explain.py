"""Why a step is not running: the rules of the claim, asked one by one of the rows that the claim reads.

Pure. Which agent meets a requirement is decided in `placement`, for the claim and for the explanation alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from towline_controlplane.engine import placement
from towline_controlplane.engine.placement import Reason, Rule
from towline_controlplane.engine.transitions import STEP_TERMINAL
from towline_controlplane.model import (
    AgentRecord,
    Attempt,
    AttemptState,
    Run,
    RunState,
    Step,
    StepState,
)
from towline_controlplane.requirements import Requirements

_NAMED = 5
"""So many of a kind are named in a sentence."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What an explanation looks at, all of one snapshot. `attempt` is the step's newest."""

    run: Run
    step: Step
    attempt: Attempt | None
    predecessors: Sequence[Step]
    requirements: Requirements
    """Of the queue that the step waits in."""
    ahead: int
    """Steps of its queue that a claim takes first."""
    agents: Sequence[tuple[AgentRecord, int]]
    """With the number of slots that what each holds takes."""
    slot_holders: Sequence[str]
    """Runs that hold the slots of the run's concurrency limit."""
    now: int

    def name_of(self, agent_id: str | None) -> str:
        """Returns the name of an agent."""
        return next((agent.name for agent, _ in self.agents if agent.id == agent_id), agent_id or "an agent")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a rule holds, and why, for a person."""

    rule: Rule
    holds: bool
    message: str


@dataclass(frozen=True, slots=True)
class AgentVerdict:
    """What keeps an agent from the step; `may_take`: nothing does, neither here nor in the step."""

    agent: AgentRecord
    online: bool
    may_take: bool
    unmet: Sequence[Reason]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer, with the decisive reason as `summary`."""

    step: Step
    summary: str
    verdicts: Sequence[Verdict]
    agents: Sequence[AgentVerdict]


def explain(situation: Situation) -> Explanation:
    """Returns why the step is not running, or what it does instead; total over all states."""
    own = _own_verdicts(situation)
    may_go = may_be_claimed(situation.step, situation.now)
    reasons = [_unmet(situation, agent, taken) for agent, taken in situation.agents]
    agents = [
        AgentVerdict(agent, placement.is_online(agent, situation.now), may_go and not unmet, unmet)
        for (agent, _), unmet in zip(situation.agents, reasons, strict=True)
    ]
    of_agents = _of_agents(situation.requirements, agents)
    priority = Verdict(Rule.PRIORITY, situation.ahead == 0, _ahead(situation))
    ordered = sorted(agents, key=lambda verdict: (not verdict.may_take, verdict.agent.name))
    return Explanation(
        situation.step, _summary(situation, own, of_agents, ordered), [*own, *of_agents, priority], ordered
    )


def may_be_claimed(step: Step, now: int) -> bool:
    """Tells whether a claim may hand the step out at `now`: the condition of its SQL."""
    return step.state is StepState.READY and not step.held and step.not_before <= now


def _own_verdicts(situation: Situation) -> list[Verdict]:
    run, step = situation.run, situation.step
    due = step.state is not StepState.READY or step.not_before <= situation.now
    waits = step.state is StepState.WAITING
    return [
        Verdict(Rule.STATE, step.state is StepState.READY, _state(situation)),
        Verdict(Rule.DEPENDENCY, not waits, _dependency(situation) if waits else "no predecessor is waited for"),
        _gate(Rule.CANCEL, "being cancelled", closed=run.cancel_requested),
        _gate(Rule.PAUSE, "frozen" if run.frozen else "paused", closed=run.state is RunState.PAUSED),
        Verdict(Rule.LIMIT, run.admitted, "the run may go" if run.admitted else _limit(situation)),
        Verdict(Rule.TIME, due, "it is due" if due else _time(situation)),
    ]


def _gate(rule: Rule, word: str, *, closed: bool) -> Verdict:
    return Verdict(rule, not closed, f"the run is {'' if closed else 'not '}{word}")


def _state(situation: Situation) -> str:
    step, attempt = situation.step, situation.attempt
    if step.state in STEP_TERMINAL:
        return f"it ended: {step.state}{f': {step.error.message}' if step.error else ''}"
    if step.state is StepState.PARKED:
        return f"a person must decide{f': {step.error.message}' if step.error else ''}"
    if step.state is StepState.LEASED and attempt is not None:
        name = situation.name_of(attempt.agent_id)
        if attempt.state is AttemptState.OFFERED:
            return f"offered to {name} {_span(situation.now - attempt.create_time)} ago, not yet confirmed"
        doing = "is frozen" if situation.run.frozen else "runs"
        return f"it {doing} on {name} for {_span(situation.now - (attempt.start_time or attempt.create_time))}"
    return f"it is {step.state}"


def _dependency(situation: Situation) -> str:
    still_open = [step for step in situation.predecessors if step.state not in STEP_TERMINAL]
    named = ", ".join(_predecessor(situation, step) for step in still_open[:_NAMED])
    more = f" and {len(still_open) - _NAMED} more" if len(still_open) > _NAMED else ""
    return f"waits for {len(still_open)} of {len(situation.predecessors)} predecessors: {named}{more}"


def _predecessor(situation: Situation, step: Step) -> str:
    where = f" on {situation.name_of(step.agent_id)}" if step.state is StepState.LEASED else ""
    return f"{step.node_id} ({step.state}{where})"


def _limit(situation: Situation) -> str:
    held = f", held by run {_listed(situation.slot_holders)}" if situation.slot_holders else ""
    return f"the run waits for one of {situation.run.concurrency_limit} slots of its concurrency limit{held}"


def _time(situation: Situation) -> str:
    step = situation.step
    tries = f": try {step.next_attempt - step.attempt_base} after {step.failures} failures" if step.failures else ""
    return f"is due in {_span(step.not_before - situation.now)}{tries}"


def _ahead(situation: Situation) -> str:
    if situation.ahead == 0:
        return "no step of its queue goes first"
    return f"{situation.ahead} step{'s' if situation.ahead > 1 else ''} of its queue go first"


def _unmet(situation: Situation, agent: AgentRecord, taken: int) -> list[Reason]:
    online = placement.is_online(agent, situation.now) and agent.session_id is not None
    found = [] if online else [Reason(Rule.ONLINE, "is offline")]
    found += placement.unmet(situation.requirements, agent)
    found += placement.refuses(agent)
    if all(reason.rule is not Rule.SLOTS for reason in found):
        found += _unmet_slots(situation.requirements.size.weight, agent, taken)
    return found


def _unmet_slots(weight: int, agent: AgentRecord, taken: int) -> list[Reason]:
    if taken + weight <= agent.slots:
        return []
    needs = f", and the step takes {weight}" if weight > 1 else ""
    return [Reason(Rule.SLOTS, f"{taken} of its {agent.slots} slots are taken{needs}")]


_OF_AGENTS = {
    Rule.ONLINE: "is online",
    Rule.LABEL: "has the labels",
    Rule.SANDBOX: "has the sandbox",
    Rule.NETWORK: "can take the network away",
    Rule.PLUGIN: "runs the plugin",
    Rule.PROTOCOL: "knows all that the node asks for",
    Rule.MEMORY: "has the memory",
    Rule.SCHEDULABLE: "takes steps",
    Rule.DRAIN: "is not drained",
    Rule.SLOTS: "has a free slot",
}


def _lacking(rule: Rule, requirements: Requirements, agents: Sequence[AgentVerdict]) -> str:
    """Says of agents of which none passes a rule what one of them lacks, or by how much all of them do."""
    if rule is Rule.MEMORY:
        largest = max(agents, key=lambda verdict: verdict.agent.memory_bytes).agent
        asked, has = requirements.size.memory_mb, largest.memory_bytes >> 20
        return f"the step needs {asked:,} MiB, and {largest.name}, the largest, has {has:,} MiB"
    lacks = next(reason.message for reason in agents[0].unmet if reason.rule is rule)
    return f"{agents[0].agent.name} {lacks}"


def _of_agents(requirements: Requirements, agents: Sequence[AgentVerdict]) -> list[Verdict]:
    """Returns a verdict for each rule about agents, over those that pass the rules before it."""
    left, found = list(agents), list[Verdict]()
    for rule, words in _OF_AGENTS.items():
        passing = [each for each in left if all(reason.rule is not rule for reason in each.unmet)]
        message = f"{len(passing)} of {len(left)} agents: {words}" if left else "no agent is left to ask"
        if left and not passing:
            message = f"no agent of {len(left)} {words}: {_lacking(rule, requirements, left)}"
        found.append(Verdict(rule, bool(passing), message))
        left = passing
    return found


def _summary(
    situation: Situation, own: Sequence[Verdict], of_agents: Sequence[Verdict], agents: Sequence[AgentVerdict]
) -> str:
    """Returns the first reason of those that nothing else can remove."""
    step = situation.step
    if step.state not in (StepState.WAITING, StepState.READY):
        return own[0].message
    for verdict in own[1:]:
        if not verdict.holds:
            return verdict.message
    if step.held:
        return "it is held back by its run"
    if not agents:
        return "no agent is enrolled"
    for verdict in of_agents:
        if not verdict.holds:
            waiting = f"; {_ahead(situation)}" if verdict.rule is Rule.SLOTS and situation.ahead else ""
            return verdict.message + waiting
    able = _listed(verdict.agent.name for verdict in agents if verdict.may_take)
    return f"{able} may take it now; {_ahead(situation)}"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_NAMED]) + (f" and {len(every) - _NAMED} more" if len(every) > _NAMED else "")


def _span(micros: int) -> str:
    seconds = max(micros, 0) / 1_000_000
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
