"""Hands ready steps to an agent, in a transaction of its own: what each offer carries is put together here."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from towline_controlplane.blueprints import Blueprint, Blueprints
from towline_controlplane.engine.handout import Handout, Holder, hand_out
from towline_controlplane.engine.placement import free_slots
from towline_controlplane.model import Attempt, Output, PluginRef, Run, Step
from towline_controlplane.store import agents, leases, runs
from towline_controlplane.store.database import Transaction
from towline_controlplane.tokens import fingerprint


@dataclass(frozen=True, slots=True)
class Claim:
    """An agent asks for up to `want` steps of the queues whose requirements it satisfies."""

    agent_id: str
    session_id: str
    queue_ids: Collection[str]
    want: int
    offer_seconds: float


@dataclass(frozen=True, slots=True)
class StepOffer:
    """A leased step with everything that its agent needs. JSON as text; `token` is known only to the agent."""

    run: Run
    step: Step
    attempt: Attempt
    token: str
    plugin: PluginRef
    timeout_ms: int
    memory_limit_mb: int
    config: str
    inputs: Mapping[str, Output]
    """By node id, of the predecessors that have one."""


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a claim. Where there are fewer offers than `room`, nothing is left that the agent could have."""

    offers: Sequence[StepOffer]
    room: int
    """How many it could have got: all that it wanted, unless fewer of its slots are free."""


def serve_within_slots(
    tx: Transaction, claims: Sequence[Claim], lease: Callable[[Claim], Sequence[StepOffer]]
) -> list[Served]:
    """Serves claims with `lease`, one after the other, and never more of an agent's than its slots allow (I19).

    The slots are counted under the lock of the agent: nobody else gives it anything meanwhile, and once a drain is
    committed nothing is given any more. An earlier session of an agent gets nothing, nor does one whose lease is over,
    even if it still seems to wait: its connection may lead nowhere, and what it were given would be lost with it.
    """
    known = agents.lock_agents(tx, {claim.agent_id for claim in claims})
    free = {
        (agent.id, agent.session_id): free_slots(agent, listed.running, tx.now)
        for listed in known.values()
        for agent in (listed.agent,)
    }
    served: list[Served] = []
    for claim in claims:
        holder = claim.agent_id, claim.session_id
        room = min(claim.want, free.get(holder, 0))
        offers = lease(replace(claim, want=room)) if room else ()
        if offers:
            free[holder] -= len(offers)
        served.append(Served(offers, room))
    return served


def claim_many(
    tx: Transaction, claim: Claim, blueprints: Blueprints, new_token: Callable[[], str], chance: float
) -> list[StepOffer]:
    """Leases up to `want` ready steps to the agent: each to it alone, with a rising epoch and a fresh token.

    `chance` in [0, 1) picks the queue that is asked first.
    """
    steps = leases.select_claimable(tx, claim.queue_ids, claim.want, chance)
    if not steps:
        return []
    locked = runs.lock_runs(tx, sorted({step.run_id for step in steps}))
    handed: list[tuple[Handout, str]] = []
    for step in steps:
        token = new_token()
        holder = Holder(
            claim.agent_id, claim.session_id, fingerprint(token), tx.now + int(claim.offer_seconds * 1_000_000)
        )
        handout = hand_out(locked[step.run_id], step, holder, tx.now)
        locked[step.run_id] = handout.run
        handed.append((handout, token))
    runs.save_changes(
        tx,
        locked.values(),
        [handout.step for handout, _ in handed],
        [handout.attempt for handout, _ in handed],
        [handout.event for handout, _ in handed],
    )
    return _offers(tx, handed, blueprints)


def _offers(tx: Transaction, handed: Sequence[tuple[Handout, str]], blueprints: Blueprints) -> list[StepOffer]:
    prints = {handout.run.version_id: blueprints.of_run(tx, handout.run) for handout, _ in handed}
    outputs = runs.load_outputs(
        tx,
        {
            (handout.run.id, source)
            for handout, _ in handed
            for source in _predecessors(prints[handout.run.version_id], handout.step)
        },
    )
    return [_offer(handout, token, prints[handout.run.version_id], outputs) for handout, token in handed]


def _offer(handout: Handout, token: str, blueprint: Blueprint, outputs: dict[tuple[str, str], Output]) -> StepOffer:
    step = handout.step
    node = blueprint.dag.nodes[step.position]
    plugin = blueprint.plugins[step.node_id]
    sources = _predecessors(blueprint, step)
    return StepOffer(
        run=handout.run,
        step=step,
        attempt=handout.attempt,
        token=token,
        plugin=plugin,
        timeout_ms=node.timeout_ms or plugin.timeout_ms,
        memory_limit_mb=node.memory_limit_mb or plugin.memory_limit_mb,
        config=step.config if step.config is not None else blueprint.configs[step.position],
        inputs={source: outputs[step.run_id, source] for source in sources if (step.run_id, source) in outputs},
    )


def _predecessors(blueprint: Blueprint, step: Step) -> list[str]:
    return [blueprint.dag.nodes[source].id for source in blueprint.dag.incoming[step.position]]
