"""Each reason for which a step does not run, and the sentence that names it."""

from dataclasses import replace
from typing import Any

import pytest

from towline_controlplane.engine.explain import Situation, explain
from towline_controlplane.engine.placement import Rule
from towline_controlplane.model import (
    AgentRecord,
    Attempt,
    AttemptState,
    Failure,
    FailureClass,
    Run,
    RunState,
    Step,
    StepState,
)
from towline_controlplane.requirements import Requirements, Size
from towline_dag.choices import Network

NOW = 1_000_000_000
RUN = Run(
    id="run-1",
    workflow_id="w",
    version_id="v",
    owner_id="o",
    state=RunState.RUNNING,
    input="{}",
    priority=0,
    labels={},
    cancel_requested=False,
    open_steps=1,
    failed_steps=0,
    event_count=0,
    create_time=0,
)
READY = Step("run-1", "load", 0, StepState.READY, "q", 0, 0)
BROKEN = Failure(FailureClass.PERMANENT, "BROKEN", "it broke")


def an_agent(number: int = 1, **fields: Any) -> AgentRecord:
    agent = AgentRecord(f"id-{number}", f"agent-{number}", "", 0, f"s-{number}", slots=2, lease_expire_time=NOW + 1)
    return replace(agent, **fields)


def a_situation(**fields: Any) -> Situation:
    usual = Situation(RUN, READY, None, (), Requirements(), 0, [(an_agent(), 0)], (), NOW)
    return replace(usual, **fields)


def leased(state: AttemptState, **fields: Any) -> dict[str, Any]:
    attempt = Attempt("run-1", "load", 1, "", state, 1, "id-1", "s-1", "", NOW - 2_000_000, NOW, **fields)
    return {"step": replace(READY, state=StepState.LEASED, attempt=1, agent_id="id-1"), "attempt": attempt}


def a_predecessor(node_id: str, state: StepState, **fields: Any) -> Step:
    return replace(READY, node_id=node_id, state=state, **fields)


WAITING = replace(READY, state=StepState.WAITING, open_edges=2)
CASES: dict[str, tuple[dict[str, Any], Rule | None, str]] = {
    "free": ({}, None, "agent-1 may take it now; no step of its queue goes first"),
    "behind others": (
        {"ahead": 14},
        Rule.PRIORITY,
        "agent-1 may take it now; 14 steps of its queue go first",
    ),
    "predecessors": (
        {
            "step": WAITING,
            "predecessors": [
                a_predecessor("extract", StepState.LEASED, agent_id="id-1"),
                a_predecessor("fetch", StepState.SUCCEEDED),
                a_predecessor("clean", StepState.WAITING),
            ],
        },
        Rule.DEPENDENCY,
        "waits for 2 of 3 predecessors: extract (LEASED on agent-1), clean (WAITING)",
    ),
    "cancelled": ({"run": replace(RUN, cancel_requested=True)}, Rule.CANCEL, "the run is being cancelled"),
    "paused": (
        {"run": replace(RUN, state=RunState.PAUSED), "step": replace(READY, held=True)},
        Rule.PAUSE,
        "the run is paused",
    ),
    "frozen": (
        {"run": replace(RUN, state=RunState.PAUSED, frozen=True), "step": replace(READY, held=True)},
        Rule.PAUSE,
        "the run is frozen",
    ),
    "limit": (
        {
            "run": replace(RUN, admitted=False, concurrency_group="g", concurrency_limit=2),
            "step": replace(READY, held=True),
            "slot_holders": ["run-7", "run-8"],
        },
        Rule.LIMIT,
        "the run waits for one of 2 slots of its concurrency limit, held by run run-7, run-8",
    ),
    "retry": (
        {"step": replace(READY, failures=1, next_attempt=2, not_before=NOW + 12_000_000)},
        Rule.TIME,
        "is due in 12 s: try 2 after 1 failures",
    ),
    "held": ({"step": replace(READY, held=True)}, None, "it is held back by its run"),
    "no agent": ({"agents": []}, Rule.ONLINE, "no agent is enrolled"),
    "offline": (
        {"agents": [(an_agent(lease_expire_time=NOW), 0)]},
        Rule.ONLINE,
        "no agent of 1 is online: agent-1 is offline",
    ),
    "label": (
        {"requirements": Requirements({"gpu": "yes"}), "agents": [(an_agent(1), 0), (an_agent(2), 0)]},
        Rule.LABEL,
        "no agent of 2 has the labels: agent-1 lacks the label gpu=yes",
    ),
    "memory": (
        {
            "requirements": Requirements(size=Size(memory_mb=6_000)),
            "agents": [
                *((an_agent(1, memory_bytes=1 << 30), 0), (an_agent(2, memory_bytes=4 << 30), 0)),
                (an_agent(3, memory_bytes=64 << 30, lease_expire_time=NOW), 0),
            ],
        },
        Rule.MEMORY,
        "no agent of 2 has the memory: the step needs 6,000 MiB, and agent-2, the largest, has 4,096 MiB",
    ),
    "sandbox": (
        {"requirements": Requirements(sandbox_level=2)},
        Rule.SANDBOX,
        "no agent of 1 has the sandbox: agent-1 its sandbox is L0, and L2 is asked for",
    ),
    "network": (
        {"requirements": Requirements(network=Network.NONE)},
        Rule.NETWORK,
        "no agent of 1 can take the network away: agent-1 cannot keep a plugin off the network",
    ),
    "plugin": (
        {"requirements": Requirements(plugin="SHELL"), "agents": [(an_agent(plugins=("DELAY",)), 0)]},
        Rule.PLUGIN,
        "no agent of 1 runs the plugin: agent-1 runs only DELAY, not SHELL",
    ),
    "protocol": (
        {"requirements": Requirements(protocol_version=2), "agents": [(an_agent(version="0.1.0"), 0)]},
        Rule.PROTOCOL,
        "no agent of 1 knows all that the node asks for: agent-1 its version 0.1.0 does not know what nodes may ask for"
        " since (fetchArtifacts, limits, network, secrets, weight)",
    ),
    "drained": (
        {"agents": [(an_agent(drained=True), 0)]},
        Rule.DRAIN,
        "no agent of 1 is not drained: agent-1 is drained",
    ),
    "slots": (
        {"agents": [(an_agent(), 2)], "ahead": 3},
        Rule.SLOTS,
        "no agent of 1 has a free slot: agent-1 2 of its 2 slots are taken; 3 steps of its queue go first",
    ),
    "offered": (leased(AttemptState.OFFERED), Rule.STATE, "offered to agent-1 2 s ago, not yet confirmed"),
    "running": (
        leased(AttemptState.RUNNING, start_time=NOW - 600_000_000),
        Rule.STATE,
        "it runs on agent-1 for 10 min",
    ),
    "parked": (
        {"step": replace(READY, state=StepState.PARKED, error=BROKEN)},
        Rule.STATE,
        "a person must decide: it broke",
    ),
    "ended": ({"step": replace(READY, state=StepState.FAILED, error=BROKEN)}, Rule.STATE, "it ended: FAILED: it broke"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_decisive_reason_is_named(case: str) -> None:
    fields, rule, summary = CASES[case]
    explanation = explain(a_situation(**fields))
    assert explanation.summary == summary
    assert rule is None or rule in {verdict.rule for verdict in explanation.verdicts if not verdict.holds}
    assert [verdict.rule for verdict in explanation.verdicts] == list(Rule)


@pytest.mark.parametrize("state", StepState)
def test_every_state_has_an_explanation(state: StepState) -> None:
    explanation = explain(a_situation(step=replace(READY, state=state)))
    assert explanation.summary
    assert any(agent.may_take for agent in explanation.agents) is (state is StepState.READY)


def test_everything_that_an_agent_lacks_is_named_and_the_able_come_first() -> None:
    poor = an_agent(1, drained=True, lease_expire_time=0, plugins=("DELAY",))
    asked = Requirements({"gpu": "yes"}, 1, "SHELL", network=Network.NONE)
    able = an_agent(2, labels={"gpu": "yes"}, sandbox_level=3, network_isolation="netns")
    first, second = explain(a_situation(requirements=asked, agents=[(poor, 2), (able, 1)])).agents
    assert (first.agent.name, first.may_take, first.unmet) == ("agent-2", True, [])
    assert [reason.rule for reason in second.unmet] == [
        *(Rule.ONLINE, Rule.LABEL, Rule.SANDBOX, Rule.NETWORK, Rule.PLUGIN, Rule.DRAIN, Rule.SLOTS)
    ]
