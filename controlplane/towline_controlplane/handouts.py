"""Hands ready steps to agents, in the commit that takes their results: what each offer carries is put together here."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from towline_controlplane.engine.allowance import DEFAULT_SERVER_LIMITS, Allowed, ServerLimits, allow
from towline_controlplane.engine.handout import Holder
from towline_controlplane.engine.placement import free_slots
from towline_controlplane.ledger import Ledger
from towline_controlplane.model import Attempt, Output, PluginRef, Run, Step
from towline_controlplane.store import agents
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
    limits: ServerLimits = DEFAULT_SERVER_LIMITS


@dataclass(frozen=True, slots=True)
class StepOffer:
    """A leased step with everything that its agent needs. JSON as text; `token` is known only to the agent."""

    run: Run
    step: Step
    attempt: Attempt
    token: str
    plugin: PluginRef
    allowed: Allowed
    config: str
    written_config: str
    """The config before its expressions were rendered."""
    inputs: Mapping[str, Output]
    """By node id, of the predecessors that have one."""


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a claim. Where there are fewer offers than `room`, nothing is left that the agent could have."""

    offers: Sequence[StepOffer]
    room: int
    """How many it could have got: all that it wanted, unless fewer of its slots are free."""


def serve(
    ledger: Ledger, claims: Sequence[Claim], new_token: Callable[[], str], chance: Callable[[], float]
) -> list[Served]:
    """Leases ready steps to the agents that claim: each to one alone, with a rising epoch and a fresh token.

    What the commit has made ready is among them. `chance` in [0, 1) picks the queue that is asked first.
    """
    ledger.save()
    rooms = _Rooms(ledger.tx, claims)
    wants = [rooms.take(claim, claim.want) for claim in claims]
    alike: defaultdict[frozenset[str], list[int]] = defaultdict(list)
    for number, want in enumerate(wants):
        if want:
            alike[frozenset(claims[number].queue_ids)].append(number)
    offers: list[list[StepOffer]] = [[] for _ in claims]
    for queue_ids, numbers in alike.items():
        ledger.save()
        steps = iter(ledger.claimable(queue_ids, sum(wants[number] for number in numbers), chance()))
        for number in numbers:
            claim = claims[number]
            offers[number] = [_lease(ledger, step, claim, new_token()) for step in islice(steps, wants[number])]
            rooms.give_back(claim, wants[number] - len(offers[number]))
    return [
        Served(tuple(given), len(given) + rooms.take(claim, claim.want - len(given)))
        for claim, given in zip(claims, offers, strict=True)
    ]


class _Rooms:
    """How many more steps agents can be given: never more than their slots allow (I19).

    The slots are counted under the lock of the agent: nobody else gives it anything meanwhile, and once a drain is
    committed nothing is given any more. An earlier session of an agent gets nothing, nor does one whose lease is over,
    even if it still seems to wait: its connection may lead nowhere, and what it were given would be lost with it.
    """

    def __init__(self, tx: Transaction, claims: Sequence[Claim]) -> None:
        known = agents.lock_agents(tx, {claim.agent_id for claim in claims}) if claims else {}
        self._free = {
            (listed.agent.id, listed.agent.session_id): free_slots(listed.agent, listed.running, tx.now)
            for listed in known.values()
        }

    def take(self, claim: Claim, want: int) -> int:
        """Takes up to `want`; returns how many there were."""
        holder = claim.agent_id, claim.session_id
        taken = min(want, self._free.get(holder, 0))
        if taken:
            self._free[holder] -= taken
        return taken

    def give_back(self, claim: Claim, count: int) -> None:
        """Takes back what was not used."""
        self._free[claim.agent_id, claim.session_id] += count


def _lease(ledger: Ledger, step: Step, claim: Claim, token: str) -> StepOffer:
    expire_time = ledger.tx.now + int(claim.offer_seconds * 1_000_000)
    blueprint = ledger.blueprint(step.run_id)
    node, plugin = blueprint.dag.nodes[step.position], blueprint.plugins[step.node_id]
    written_config = blueprint.configs[step.position]
    allowed = allow(node, plugin, step.memory_limit_mb, claim.limits)
    holder = Holder(claim.agent_id, claim.session_id, fingerprint(token), expire_time, allowed.memory_limit_mb)
    handout = ledger.hand_out(step, holder)
    return StepOffer(
        run=handout.run,
        step=handout.step,
        attempt=handout.attempt,
        token=token,
        plugin=plugin,
        allowed=allowed,
        config=step.config if step.config is not None else written_config,
        written_config=written_config,
        inputs=ledger.inputs(step),
    )
