"""The engine against a slow model of its rules: random workflows, random histories, every row after every commit."""

import json
from collections.abc import Callable, Sequence

from engine_driver import BROKEN, BUSY, HUNGRY, LEFT, SLOW, Driver, end
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from reference_model import (
    CANCEL,
    CONFIRM,
    DEADLINE,
    EXPIRE,
    FAIL,
    FAIL_FOR_GOOD,
    FREEZE,
    HAND_OUT,
    LEAVE,
    LOSE,
    MEMORY,
    PAUSE,
    RESUME,
    RETRY,
    STARVE,
    STOP,
    SUCCEED,
    TIME_OUT,
    WAIT_OUT,
    Fact,
    Formula,
    Plan,
    PlannedEdge,
    PlannedNode,
    picture,
)

from towline_controlplane.engine import commands
from towline_controlplane.engine.commands import Command, Outcome
from towline_controlplane.engine.transitions import RUN_TERMINAL
from towline_controlplane.evidence import Cause
from towline_controlplane.model import AttemptState, RunState, StepState
from towline_dag.choices import ConditionType, Join

NODES = [f"n{index}" for index in range(7)]


def conditions(readable: Sequence[str]) -> st.SearchStrategy[Formula]:
    """Expressions that yield a boolean, or nothing, from the nodes that are surely over."""
    node, least = st.sampled_from(readable), st.integers(0, 3)
    return st.one_of(
        st.booleans().map(lambda value: Formula(str(value).lower(), lambda _: value)),
        least.map(lambda k: Formula(f"input > {k}", lambda seen: seen.input > k)),
        node.map(lambda n: Formula(f"nodes['{n}'].state == 'SUCCEEDED'", lambda s: s.states[n] == "SUCCEEDED")),
        st.tuples(node, least).map(lambda p: _larger(*p)),
        st.tuples(node, least).map(lambda p: _larger_if_any(*p)),
    )


def _larger(node: str, least: int) -> Formula:
    return Formula(f"nodes.{node}.output.n > {least}", lambda seen: seen.output(node) > least)


def _larger_if_any(node: str, least: int) -> Formula:
    cel = f"nodes.{node}.output != null && nodes.{node}.output.n > {least}"
    return Formula(cel, lambda seen: node in seen.outputs and seen.outputs[node] > least)


def configs(readable: Sequence[str]) -> st.SearchStrategy[Formula | None]:
    """Values for a config; those of a node that has no output cannot be rendered."""
    twice = st.just(Formula("input * 2", lambda seen: seen.input * 2))
    if not readable:
        return st.none() | twice
    node = st.sampled_from(readable)
    output = node.map(lambda n: Formula(f"nodes.{n}.output.n + 1", lambda seen: seen.output(n) + 1))
    state = node.map(lambda n: Formula(f"nodes.{n}.state", lambda seen: seen.states[n].value))
    return st.none() | twice | output | state


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = NODES[: draw(st.integers(1, len(NODES)))]
    before: dict[str, list[str]] = {}
    nodes: list[PlannedNode] = []
    edges: list[PlannedEdge] = []
    for index, name in enumerate(names):
        sources = draw(st.lists(st.sampled_from(names[:index]), unique=True, max_size=3)) if index else []
        before[name] = sorted({each for source in sources for each in (source, *before[source])})
        for source in sources:
            condition = draw(st.sampled_from(ConditionType))
            formula = None
            if condition is ConditionType.EXPRESSION:
                formula = draw(conditions([source, *before[source]]))
            edges.append(PlannedEdge(source, name, condition, formula))
        nodes.append(
            PlannedNode(
                name,
                join=draw(st.sampled_from(Join)),
                unsafe=draw(st.integers(0, 5)) == 0,
                max_attempts=draw(st.integers(1, 3)),
                max_lost=draw(st.integers(0, 2)),
                memory_multiplier=draw(st.integers(1, 3)),
                max_memory=draw(st.sampled_from([50, 150, 1_000])),
                config=draw(configs(before[name])),
            )
        )
    return Plan(nodes, edges, input=draw(st.integers(0, 4)))


COMMANDS: dict[str, Callable[[Fact], Command]] = {
    CONFIRM: lambda fact: commands.ConfirmStart(fact.node),
    EXPIRE: lambda fact: commands.ExpireOffer(fact.node),
    LOSE: lambda fact: commands.LoseAttempt(fact.node, "gone"),
    SUCCEED: lambda fact: end(fact.node, Outcome.SUCCEEDED, output={"n": fact.output}),
    FAIL: lambda fact: end(fact.node, Outcome.FAILED, BUSY),
    FAIL_FOR_GOOD: lambda fact: end(fact.node, Outcome.FAILED, BROKEN),
    STARVE: lambda fact: end(fact.node, Outcome.FAILED, HUNGRY, cause=Cause.MEMORY_LIMIT),
    LEAVE: lambda fact: end(fact.node, Outcome.LOST, LEFT),
    TIME_OUT: lambda fact: end(fact.node, Outcome.TIMED_OUT, SLOW),
    STOP: lambda fact: end(fact.node, Outcome.CANCELLED),
    PAUSE: lambda _: commands.Pause(),
    FREEZE: lambda _: commands.Pause(freeze=True),
    RESUME: lambda _: commands.Resume(),
    CANCEL: lambda _: commands.Cancel(),
    DEADLINE: lambda _: commands.ReachDeadline(),
    WAIT_OUT: lambda fact: commands.ExpireQueueWait(fact.node),
    RETRY: lambda _: commands.Retry(),
}

# What can happen next, often things often: successes many times, the end of the run seldom.
REPORTS = [SUCCEED] * 6 + [FAIL, FAIL, FAIL_FOR_GOOD, STARVE, STARVE, TIME_OUT, LEAVE, STOP]
WHILE_OFFERED = [LOSE, CONFIRM, CONFIRM, EXPIRE, *REPORTS]
WHILE_RUNNING = [LOSE, LOSE, *REPORTS]


def possible(driver: Driver) -> list[Fact]:
    """Lists what can happen to the run now, in an order that is always the same."""
    if driver.run.state in RUN_TERMINAL:
        return [Fact(RETRY)]
    found: list[Fact] = []
    for node, step in driver.steps.items():
        if step.state is StepState.READY and not step.held:
            found += [*([Fact(HAND_OUT, node)] * 5), Fact(WAIT_OUT, node)]
        if step.state is StepState.LEASED:
            offered = driver.newest(node).state is AttemptState.OFFERED
            found += [Fact(what, node) for what in (WHILE_OFFERED if offered else WHILE_RUNNING)]
    return [*found, Fact(PAUSE), Fact(FREEZE), Fact(RESUME), Fact(RESUME), Fact(CANCEL), Fact(DEADLINE)]


def compare(driver: Driver, plan: Plan, facts: Sequence[Fact]) -> None:
    expected = picture(plan, facts)
    assert driver.states() == {node: state.value for node, state in expected.states.items()}
    assert driver.run.state is expected.run
    assert driver.run.frozen is expected.frozen
    assert (driver.run.open_steps, driver.run.failed_steps) == (expected.open_steps, expected.failed_steps)
    assert {node for node, step in driver.steps.items() if step.held} == expected.held
    assert {node: step.attempt for node, step in driver.steps.items()} == expected.attempts
    assert {node: step.epoch for node, step in driver.steps.items()} == expected.epochs
    rendered = {node: json.loads(step.config)["value"] for node, step in driver.steps.items() if step.config}
    assert rendered == expected.configs
    allowed = {node: driver.steps[node].memory_limit_mb or MEMORY for node in expected.memory}
    assert allowed == expected.memory


LONG = st.lists(st.integers(0, 10_000), min_size=50, max_size=50)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans(), choices=LONG, values=st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_every_history_of_every_workflow_follows_the_rules(plan: Plan, choices: list[int], values: list[int]) -> None:
    driver = Driver(plan.document(), plan.input)
    facts: list[Fact] = []
    compare(driver, plan, facts)
    for turn, choice in enumerate(choices):
        if driver.run.state is RunState.SUCCEEDED:
            break
        options = possible(driver)
        happen(driver, plan, facts, [with_output(options[choice % len(options)], values[turn % len(values)])])
    finish(driver, plan, facts)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans(), choices=LONG, outcomes=LONG)
def test_a_group_commit_does_what_its_commands_do_one_by_one(
    plan: Plan, choices: list[int], outcomes: list[int]
) -> None:
    driver = Driver(plan.document(), plan.input)
    facts: list[Fact] = []
    for turn, choice in enumerate(choices):
        if driver.run.state in RUN_TERMINAL:
            break
        ready = [node for node, step in driver.steps.items() if step.state is StepState.READY and not step.held]
        happen(driver, plan, facts, [Fact(HAND_OUT, node) for node in ready])
        leased = [node for node, step in driver.steps.items() if step.state is StepState.LEASED]
        reports = [Fact(REPORTS[(choice + place) % len(REPORTS)], node) for place, node in enumerate(leased)]
        gate = [[], [Fact(PAUSE)], [Fact(FREEZE)], [Fact(RESUME)], [Fact(RESUME)]][outcomes[turn] % 5]
        happen(driver, plan, facts, [*gate, *(with_output(report, choice % 5) for report in reports)])
    finish(driver, plan, facts)


def with_output(fact: Fact, value: int) -> Fact:
    return Fact(fact.what, fact.node, value if fact.what == SUCCEED else 0)


def happen(driver: Driver, plan: Plan, facts: list[Fact], new: Sequence[Fact]) -> None:
    """Lets the new facts come true in one commit, and compares the run with the model."""
    note(", ".join(map(str, new)))
    facts.extend(new)
    for fact in new:
        if fact.what == HAND_OUT:
            driver.hand_out(fact.node)
    batch = [COMMANDS[fact.what](fact) for fact in new if fact.what != HAND_OUT]
    if batch:
        driver.do(*batch)
    compare(driver, plan, facts)


def finish(driver: Driver, plan: Plan, facts: list[Fact]) -> None:
    """Lets every step that is still to run succeed, gives up on what is parked, and sees the run end."""
    if driver.run.state not in RUN_TERMINAL:
        happen(driver, plan, facts, [Fact(RESUME)])
    while driver.run.state not in RUN_TERMINAL:
        leased = [node for node, step in driver.steps.items() if step.state is StepState.LEASED]
        ready = [node for node, step in driver.steps.items() if step.state is StepState.READY]
        if leased:
            happen(driver, plan, facts, [Fact(SUCCEED, node, 1) for node in leased])
        else:
            happen(driver, plan, facts, [Fact(HAND_OUT, node) for node in ready] or [Fact(CANCEL)])
