"""Gathers what an explanation looks at, and writes it as its message."""

import json
from typing import Any, Final

from towline.v1 import explanation_pb2
from towline_controlplane.engine.allowance import NO_RULES, Platform
from towline_controlplane.engine.explain import Explanation, Situation, may_be_claimed
from towline_controlplane.model import Run, Step, StepState
from towline_controlplane.requirements import Requirements
from towline_controlplane.store import agents, concurrency, leases, queues, runs, workflows
from towline_controlplane.store.database import Transaction

MAX_AGENTS: Final = 1_000
MAX_SHOWN_AGENTS: Final = 100
MAX_AHEAD: Final = 1_000


def situation_of(tx: Transaction, run: Run, step: Step, platform: Platform = NO_RULES) -> Situation:
    """Returns what there is to know of a step, of one snapshot."""
    names = _sources(tx, run, step) if step.state is StepState.WAITING else ()
    sources = runs.load_steps(tx, [(run.id, node_id) for node_id in names]) if names else ()
    attempts = runs.load_newest_attempts(tx, [(run.id, step.node_id)]) if step.attempt else []
    listed = agents.list_agents(tx, "", MAX_AGENTS)
    asked = queues.all_queues(tx).get(step.queue_id, Requirements()).with_memory(step.memory_limit_mb)
    waits = run.concurrency_group is not None and not run.admitted
    return Situation(
        run=run,
        step=step,
        attempt=attempts[0] if attempts else None,
        predecessors=sorted(sources, key=lambda source: source.position),
        requirements=platform.enforced(asked),
        ahead=leases.count_ahead(tx, step, MAX_AHEAD) if may_be_claimed(step, tx.now) else 0,
        agents=[(each.agent, each.taken) for each in listed],
        slot_holders=concurrency.slot_holders(tx, run.concurrency_group or "") if waits else (),
        now=tx.now,
    )


def explanation_message(explanation: Explanation) -> explanation_pb2.Explanation:
    """Returns the explanation; of agents only what everybody may know: name, online, and what they lack."""
    step = explanation.step
    return explanation_pb2.Explanation(
        run_id=step.run_id,
        node_id=step.node_id,
        state=step.state.value,
        summary=explanation.summary,
        verdicts=[_verdict(each.rule, each.message, holds=each.holds) for each in explanation.verdicts],
        agents=[
            explanation_pb2.Explanation.AgentVerdict(
                name=each.agent.name,
                online=each.online,
                may_take=each.may_take,
                unmet=[_verdict(reason.rule, reason.message, holds=False) for reason in each.unmet],
            )
            for each in explanation.agents[:MAX_SHOWN_AGENTS]
        ],
    )


def _verdict(rule: str, message: str, *, holds: bool) -> explanation_pb2.Explanation.Verdict:
    return explanation_pb2.Explanation.Verdict(rule=rule, holds=holds, message=message)


def _sources(tx: Transaction, run: Run, step: Step) -> list[str]:
    version = workflows.get_version(tx, run.version_id)
    if version is None:
        raise LookupError(f"run {run.id} names version {run.version_id}, which is gone")
    document: dict[str, Any] = json.loads(version.dag)
    node_id = document["nodes"][step.position]["id"]
    return [edge["from"] for edge in document["edges"] if edge["to"] == node_id]
