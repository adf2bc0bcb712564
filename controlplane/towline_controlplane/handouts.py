"""Hands ready steps to agents, in the commit that takes their results: what each offer carries is put together here."""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from towline_controlplane.engine.allowance import Allowed, allow
from towline_controlplane.engine.handout import Holder
from towline_controlplane.ledger import Ledger
from towline_controlplane.model import Attempt, Output, PluginRef, Run, Step
from towline_controlplane.requirements import Requirements, Size
from towline_controlplane.rooms import Claim, Room, rooms_of
from towline_controlplane.saving import Saving
from towline_controlplane.store import leases
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.runs import StepKey
from towline_controlplane.tokens import fingerprint


@dataclass(frozen=True, slots=True)
class StepOffer:
    """A leased step with everything that its agent needs. JSON as text; `token` is known only to the agent."""

    run: Run
    step: Step
    attempt: Attempt
    token: str
    plugin: PluginRef
    requirements: Requirements
    allowed: Allowed
    config: str
    written_config: str
    """The config before its expressions were rendered."""
    inputs: Mapping[str, Output]
    """By node id, of the predecessors that have one."""
    artifact_counts: Mapping[str, int]
    """By node id, of the predecessors that succeeded with any."""
    fetch_artifacts: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a claim."""

    offers: Sequence[StepOffer]
    room: int
    """Slots that it could have got: all that it wanted, unless fewer of its agent's are free."""
    found_end: bool = True
    """Nothing is left that the agent could have."""
    queue_ids: frozenset[str] = frozenset()
    """The queues whose steps it has room for."""
    ask_again: bool = False
    """A step waits that fits the agent's free slots, but not what it asked for."""


def serve(
    ledger: Ledger,
    claims: Sequence[Claim],
    new_token: Callable[[], str],
    chance: Callable[[], float],
    saving: Saving,
    most: int | None = None,
) -> list[Served]:
    """Leases ready steps to the agents that claim: each to one alone, with a rising epoch and a fresh token.

    What the commit has made ready is among them. `chance` in [0, 1) picks the queue that is asked first; `most` bounds
    the steps of each claim.
    """
    ledger.save()
    rooms = rooms_of(ledger.tx, claims)
    heads = _Heads(ledger.tx)
    queues = [saving.queues(ledger.tx, room, heads.head_of) for room in rooms]
    alike: defaultdict[frozenset[str], list[int]] = defaultdict(list)
    for number, room in enumerate(rooms):
        if queues[number] and room.slots:
            alike[queues[number]].append(number)
    offers: list[list[StepOffer]] = [[] for _ in claims]
    ends = [False for _ in claims]
    for queue_ids, numbers in alike.items():
        ledger.save()
        wanted = sum(rooms[number].slots for number in numbers)
        steps = deque(ledger.claimable(queue_ids, wanted if most is None else most, chance()))
        for number in numbers:
            offers[number] = _deal(ledger, rooms[number], steps, new_token, most)
            ends[number] = not steps and rooms[number].slots > 0
    return [
        Served(
            tuple(given),
            room.slots + sum(each.attempt.weight for each in given),
            found_end,
            room.queues(),
            not given and _is_too_narrow(room, heads),
        )
        for given, room, found_end in zip(offers, rooms, ends, strict=True)
    ]


def first_claimable(ledger: Ledger, claim: Claim, saving: Saving) -> Sequence[StepKey]:
    """Returns the step that `serve` would look at first for a claim alone, with no chance; locks its run."""
    (room,) = rooms_of(ledger.tx, [claim])
    return leases.lock_claimable(ledger.tx, saving.queues(ledger.tx, room, _Heads(ledger.tx).head_of), 1).keys


class _Heads:
    """Which step goes next in a queue, looked up once in a commit."""

    def __init__(self, tx: Transaction) -> None:
        self.head_of = cache(partial(leases.first_due, tx))


def _is_too_narrow(room: Room, heads: _Heads) -> bool:
    waiting = (queue_id for queue_id in room.sized() if room.fits_when_asked(queue_id))
    return any(room.claim.sizes[each].weight > room.want and heads.head_of(each) for each in waiting)


def _deal(
    ledger: Ledger, room: Room, steps: deque[Step], new_token: Callable[[], str], most: int | None
) -> list[StepOffer]:
    """Takes from `steps` what a room has place for, in their order; what does not fit stays."""
    given: list[StepOffer] = []
    passed: list[Step] = []
    while steps and room.slots and len(given) != most:
        step = steps.popleft()
        blueprint = ledger.blueprint(step.run_id)
        node, plugin = blueprint.dag.nodes[step.position], blueprint.plugins[step.node_id]
        allowed = allow(node, plugin, step.memory_limit_mb, room.claim.limits)
        size = Size(node.requirements.size.weight, allowed.memory_limit_mb)
        if room.fits(size):
            room.take(size)
            given.append(_lease(ledger, step, room.claim, new_token(), allowed))
        else:
            passed.append(step)
    steps.extendleft(reversed(passed))
    return given


def _lease(ledger: Ledger, step: Step, claim: Claim, token: str, allowed: Allowed) -> StepOffer:
    expire_time = ledger.tx.now + int(claim.offer_seconds * 1_000_000)
    blueprint = ledger.blueprint(step.run_id)
    node, plugin = blueprint.dag.nodes[step.position], blueprint.plugins[step.node_id]
    written_config = blueprint.configs[step.position]
    holder = Holder(
        agent_id=claim.agent_id,
        session_id=claim.session_id,
        token_hash=fingerprint(token),
        offer_expire_time=expire_time,
        memory_limit_mb=allowed.memory_limit_mb,
        weight=node.requirements.size.weight,
    )
    handout = ledger.hand_out(step, holder)
    return StepOffer(
        run=handout.run,
        step=handout.step,
        attempt=handout.attempt,
        token=token,
        plugin=plugin,
        requirements=node.requirements,
        allowed=allowed,
        config=step.config if step.config is not None else written_config,
        written_config=written_config,
        inputs=ledger.inputs(step),
        artifact_counts=ledger.artifact_counts(step),
        fetch_artifacts=node.fetch_artifacts,
    )
