"""The rules of a run, written to be obviously right: everything is worked out again from the list of what happened.

Knows nothing of views, waves, counters or rows. A plan describes a workflow; `picture` says what its run looks like
after some facts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from towline_controlplane.model import RunState, StepState
from towline_dag.choices import ConditionType, Join


class Undefined(Exception):
    """An expression has no value."""


@dataclass(frozen=True)
class Seen:
    """What an expression sees of the nodes that have ended, and of the run's input."""

    states: Mapping[str, StepState]
    outputs: Mapping[str, int]
    input: int

    def output(self, node: str) -> int:
        if node not in self.outputs:
            raise Undefined
        return self.outputs[node]


@dataclass(frozen=True)
class Formula:
    """An expression as the engine gets it, and what it means."""

    cel: str
    meaning: Callable[[Seen], Any]


@dataclass(frozen=True)
class PlannedEdge:
    source: str
    target: str
    condition: ConditionType
    formula: Formula | None = None


@dataclass(frozen=True)
class PlannedNode:
    id: str
    join: Join = Join.ALL
    unsafe: bool = False
    max_attempts: int = 1
    max_lost: int = 0
    memory_multiplier: int = 1
    max_memory: int = 1_000
    config: Formula | None = None


@dataclass(frozen=True)
class Plan:
    """Nodes in topological order."""

    nodes: Sequence[PlannedNode]
    edges: Sequence[PlannedEdge]
    input: int = 0

    def into(self, node: str) -> list[PlannedEdge]:
        return [edge for edge in self.edges if edge.target == node]

    def document(self) -> dict[str, Any]:
        return {
            "nodes": [
                {
                    "id": node.id,
                    "type": "T",
                    "join": node.join.value,
                    "sideEffects": "UNSAFE" if node.unsafe else "IDEMPOTENT",
                    "retryConfig": {
                        "maxAttempts": node.max_attempts,
                        "maxLost": node.max_lost,
                        "memoryMultiplier": node.memory_multiplier,
                        "maxMemoryMb": node.max_memory,
                    },
                    "config": {"value": f"${{{{ {node.config.cel} }}}}"} if node.config else {},
                }
                for node in self.nodes
            ],
            "edges": [
                {
                    "from": edge.source,
                    "to": edge.target,
                    "condition": {"type": edge.condition.value}
                    | ({"expression": f.cel} if (f := edge.formula) else {}),
                }
                for edge in self.edges
            ],
        }


@dataclass(frozen=True)
class Fact:
    """Something that happened: to a node, or with an empty node to the run."""

    what: str
    node: str = ""
    output: int = 0

    def __str__(self) -> str:
        return f"{self.what} {self.node}".strip()


HAND_OUT, CONFIRM, EXPIRE, LOSE, LEAVE = "hand out", "confirm", "expire", "lose", "leave"
SUCCEED, FAIL, FAIL_FOR_GOOD, TIME_OUT, STOP = "succeed", "fail", "fail for good", "time out", "stop"
PAUSE, FREEZE, RESUME, CANCEL = "pause", "freeze", "resume", "cancel"
DEADLINE, WAIT_OUT, RETRY = "deadline", "wait out", "retry"
STARVE = "starve"

MEMORY = 100
"""What a step is allowed at first."""

_ENDS_A_HOLD = {EXPIRE, LOSE, LEAVE, SUCCEED, FAIL, FAIL_FOR_GOOD, STARVE, TIME_OUT, STOP}
_STARTS = {CONFIRM, LEAVE, SUCCEED, FAIL, FAIL_FOR_GOOD, STARVE, TIME_OUT, STOP}
_STOPS = {CANCEL, DEADLINE}
_UNMET = {StepState.WAITING, StepState.READY, StepState.LEASED, StepState.PARKED}
_FAILED = {StepState.FAILED, StepState.TIMED_OUT}


@dataclass(frozen=True)
class Picture:
    """A run as it is to be."""

    states: Mapping[str, StepState]
    run: RunState
    open_steps: int
    failed_steps: int
    held: frozenset[str]
    frozen: bool
    attempts: Mapping[str, int]
    """Number of the newest attempt."""
    epochs: Mapping[str, int]
    configs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Rendered values of the nodes that became READY and have a formula."""
    memory: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the next or current attempt of the nodes that may have one is allowed."""


@dataclass(frozen=True)
class Kept:
    """What a retry of the run left as it was."""

    states: Mapping[str, StepState] = field(default_factory=dict[str, StepState])
    outputs: Mapping[str, int] = field(default_factory=dict[str, int])
    configs: Mapping[str, Any] = field(default_factory=dict[str, Any])


def picture(plan: Plan, history: Sequence[Fact]) -> Picture:
    """Works out what the run looks like after `history`."""
    kept, facts = Kept(), list(history)
    while Fact(RETRY) in facts:
        retry = facts.index(Fact(RETRY))
        kept, facts = _kept(plan, facts[:retry], kept), facts[retry + 1 :]
    states, configs = _states(plan, facts, kept)
    still_open = [node for node, state in states.items() if state in _UNMET]
    failed = [node for node, state in states.items() if _fails_run(plan, node, state, facts)]
    paused, _ = _gate(facts)
    return Picture(
        states=states,
        run=_run_state(facts, bool(still_open), bool(failed)),
        open_steps=len(still_open),
        failed_steps=len(failed),
        frozen=paused and bool(still_open) and _is_frozen(facts),
        held=frozenset(node for node, state in states.items() if state is StepState.READY and paused),
        attempts={node.id: _newest_attempt(_of(history, node.id)) for node in plan.nodes},
        epochs={node.id: sum(fact.what == HAND_OUT for fact in _of(history, node.id)) for node in plan.nodes},
        configs=configs,
        memory={
            node.id: _memory(node, _of(facts, node.id))
            for node in plan.nodes
            if states[node.id] in (StepState.READY, StepState.LEASED)
        },
    )


def _memory(node: PlannedNode, facts: Sequence[Fact]) -> int:
    memory = MEMORY
    for fact in facts:
        if fact.what == STARVE:
            memory = max(memory, min(memory * node.memory_multiplier, node.max_memory))
    return memory


def _kept(plan: Plan, facts: Sequence[Fact], before: Kept) -> Kept:
    """Leaves what neither kept the run from success nor lies behind a node that did."""
    states, configs = _states(plan, facts, before)
    again = {node for node, state in states.items() if state is StepState.CANCELLED or _is_unhandled(plan, node, state)}
    for node in plan.nodes:
        if any(edge.source in again for edge in plan.into(node.id)):
            again.add(node.id)
    outputs = {**before.outputs, **{fact.node: fact.output for fact in facts if fact.what == SUCCEED}}
    return Kept(
        states={node: state for node, state in states.items() if node not in again},
        outputs={node: output for node, output in outputs.items() if node not in again},
        configs={node: config for node, config in configs.items() if node not in again},
    )


def _states(plan: Plan, facts: Sequence[Fact], kept: Kept) -> tuple[dict[str, StepState], dict[str, Any]]:
    stop = next((index for index, fact in enumerate(facts) if fact.what in _STOPS), None)
    if stop is None:
        return _unstopped_states(plan, facts, kept)
    states, configs = _unstopped_states(plan, facts[:stop], kept)
    for node, state in states.items():
        given_back = any(fact.what in _ENDS_A_HOLD for fact in _of(facts[stop:], node))
        if state in _UNMET and (state is not StepState.LEASED or given_back):
            states[node] = StepState.CANCELLED
    return states, configs


def _unstopped_states(plan: Plan, facts: Sequence[Fact], kept: Kept) -> tuple[dict[str, StepState], dict[str, Any]]:
    outputs = {**kept.outputs, **{fact.node: fact.output for fact in facts if fact.what == SUCCEED}}
    states: dict[str, StepState] = {}
    configs: dict[str, Any] = dict(kept.configs)
    for node in plan.nodes:
        if node.id in kept.states:
            states[node.id] = kept.states[node.id]
            continue
        seen = Seen(states, outputs, plan.input)
        before_hand_out = _before_hand_out(plan, node, seen, configs)
        states[node.id] = _after_hand_out(node, _of(facts, node.id)) or before_hand_out
    return states, configs


def _before_hand_out(plan: Plan, node: PlannedNode, seen: Seen, configs: dict[str, Any]) -> StepState:
    edges = plan.into(node.id)
    if any(seen.states[edge.source] in _UNMET for edge in edges):
        return StepState.WAITING
    try:
        satisfied = [_is_satisfied(edge, seen) for edge in edges]
        joins = {Join.ALL: all(satisfied), Join.ANY: any(satisfied) or not edges, Join.ALL_DONE: True}
        if not joins[node.join]:
            return StepState.SKIPPED
        if node.config:
            configs[node.id] = node.config.meaning(seen)
    except Undefined:
        return StepState.FAILED
    return StepState.READY


def _is_satisfied(edge: PlannedEdge, seen: Seen) -> bool:
    state = seen.states[edge.source]
    if edge.condition is ConditionType.ALWAYS:
        return True
    if edge.condition is ConditionType.ON_SUCCESS:
        return state is StepState.SUCCEEDED
    if edge.condition is ConditionType.ON_FAILURE:
        return state in _FAILED
    assert edge.formula is not None
    return state is not StepState.SKIPPED and edge.formula.meaning(seen)


def _after_hand_out(node: PlannedNode, facts: Sequence[Fact]) -> StepState | None:
    """Follows a node from its first hand-out, or to the end of its wait for one; None if there was neither."""
    state = None
    failures = losses = 0
    for place, fact in enumerate(facts):
        if fact.what == HAND_OUT:
            state = StepState.LEASED
        elif fact.what == SUCCEED:
            state = StepState.SUCCEEDED
        elif fact.what == STOP:
            state = StepState.CANCELLED
        elif fact.what == EXPIRE:
            state = StepState.PARKED if node.unsafe else StepState.READY
        elif fact.what == FAIL_FOR_GOOD:
            state = StepState.FAILED
        elif fact.what == WAIT_OUT:
            state = StepState.TIMED_OUT
        elif fact.what in (FAIL, TIME_OUT, STARVE):
            failures += 1
            last = StepState.TIMED_OUT if fact.what == TIME_OUT else StepState.FAILED
            helps = fact.what != STARVE or _memory(node, facts[: place + 1]) > _memory(node, facts[:place])
            state = StepState.READY if helps and failures < node.max_attempts else last
        elif fact.what in (LOSE, LEAVE):
            losses += 1
            state = StepState.READY if losses <= node.max_lost else StepState.FAILED
            state = StepState.PARKED if node.unsafe else state
    return state


def _newest_attempt(facts: Sequence[Fact]) -> int:
    """Numbers go up when an attempt that had started is over; an offer that lapsed keeps its number for the next."""
    number = over = 0
    for fact in facts:
        if fact.what == HAND_OUT:
            number = over + 1
        elif fact.what in _ENDS_A_HOLD - {EXPIRE}:
            over += 1
        elif fact.what == RETRY:
            over = number
    return number


def _fails_run(plan: Plan, node: str, state: StepState, facts: Sequence[Fact]) -> bool:
    if state is StepState.CANCELLED:
        stopped = next((index for index, fact in enumerate(facts) if fact == Fact(STOP, node)), None)
        return stopped is not None and not any(fact.what in _STOPS for fact in facts[:stopped])
    return _is_unhandled(plan, node, state)


def _is_unhandled(plan: Plan, node: str, state: StepState) -> bool:
    handled = any(edge.source == node and edge.condition is ConditionType.ON_FAILURE for edge in plan.edges)
    return state in _FAILED and not handled


def _run_state(facts: Sequence[Fact], is_open: bool, has_failed: bool) -> RunState:
    if not is_open:
        stops = [fact for fact in facts if fact.what in _STOPS]
        if stops:
            return RunState.CANCELLED if stops[0].what == CANCEL else RunState.TIMED_OUT
        return RunState.FAILED if has_failed else RunState.SUCCEEDED
    paused, resumed = _gate(facts)
    if paused:
        return RunState.PAUSED
    begun = resumed or any(fact.what in _STARTS for fact in facts)
    return RunState.RUNNING if begun else RunState.PENDING


def _gate(facts: Sequence[Fact]) -> tuple[bool, bool]:
    """Tells whether the run is paused, and whether it was resumed before."""
    paused = resumed = cancelled = False
    for fact in facts:
        cancelled = cancelled or fact.what in _STOPS
        if fact.what in (PAUSE, FREEZE) and not cancelled:
            paused = True
        if fact.what == RESUME and paused:
            paused, resumed = False, True
    return paused, resumed


def _is_frozen(facts: Sequence[Fact]) -> bool:
    """Tells whether the last word about a paused run was to stand still, and no stop has come since the first."""
    gates = [fact.what for fact in facts if fact.what in (PAUSE, FREEZE, RESUME)]
    return gates[-1] == FREEZE and not any(fact.what in _STOPS for fact in facts)


def _of(facts: Sequence[Fact], node: str) -> list[Fact]:
    return [fact for fact in facts if fact.node == node or fact.what == RETRY]
