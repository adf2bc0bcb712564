"""What agents have room for, in slots and in memory, while one commit hands out steps.

Never more than an agent's slots by the server's own count (I19). The limits of memory of what is offered fit into what
the agent says is free, less what it was offered since; an agent that holds nothing is given what fits its memory in
all, so that no step waits for memory that something else on the machine keeps.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from towline_controlplane.engine.allowance import DEFAULT_SERVER_LIMITS, ServerLimits
from towline_controlplane.engine.placement import free_slots, refuses
from towline_controlplane.requirements import Size
from towline_controlplane.store import agents
from towline_controlplane.store.database import Transaction

_USUAL = Size()


@dataclass(frozen=True, slots=True)
class Claim:
    """An agent asks for steps that take up to `want` slots, of the queues whose requirements it satisfies."""

    agent_id: str
    session_id: str
    queue_ids: Collection[str]
    want: int
    offer_seconds: float
    sizes: Mapping[str, Size] = field(default_factory=dict[str, Size])
    """What steps of a queue take, where that is more than a slot and the usual memory."""
    free_memory_mb: int | None = None
    """By the agent's own word; None: not known."""
    limits: ServerLimits = DEFAULT_SERVER_LIMITS

    def resolved(self, size: Size) -> Size:
        """Returns what a step takes, with the memory that it gets."""
        return Size(size.weight, self.limits.memory_mb(size.memory_mb))


@dataclass(slots=True)
class Holder:
    """A session of an agent, and what it can still be given."""

    free_slots: int
    offered_mb: int
    holds_something: bool
    memory_mb: int = 0
    """Its memory in all; 0: not known."""
    takes_steps: bool = True
    """Neither gone nor drained."""

    def fits(self, size: Size, claim: Claim) -> bool:
        """Tells whether it could be given a step now, if it had asked for all its free slots."""
        if size.weight > self.free_slots or (self.memory_mb and size.memory_mb > self.memory_mb):
            return False
        if claim.free_memory_mb is None or not self.holds_something:
            return True
        return self.offered_mb + size.memory_mb <= claim.free_memory_mb


@dataclass(slots=True)
class Room:
    """What one claim can still be given; claims of the same agent share its holder."""

    claim: Claim
    holder: Holder
    want: int

    @property
    def slots(self) -> int:
        """Slots that it asks for and that are free."""
        return min(self.want, self.holder.free_slots)

    def fits(self, size: Size) -> bool:
        """Tells whether it can be given a step."""
        return size.weight <= self.want and self.holder.fits(self.claim.resolved(size), self.claim)

    def take(self, size: Size) -> None:
        """Gives it a step."""
        self.want -= size.weight
        self.holder.free_slots -= size.weight
        self.holder.offered_mb += self.claim.resolved(size).memory_mb
        self.holder.holds_something = True

    def queues(self) -> frozenset[str]:
        """Returns the queues whose steps fit."""
        if not self.fits(_USUAL):
            usual: frozenset[str] = frozenset()
        else:
            usual = frozenset(self.claim.queue_ids).difference(self.claim.sizes)
        return usual.union(queue_id for queue_id in self.sized() if self.fits(self.claim.sizes[queue_id]))

    def fits_when_asked(self, queue_id: str) -> bool:
        """Tells whether steps of a sized queue fit, once the agent asks for all that it has free."""
        return self.holder.fits(self.claim.resolved(self.claim.sizes[queue_id]), self.claim)

    def sized(self) -> list[str]:
        """Returns the queues whose steps take more than the usual."""
        return [queue_id for queue_id in self.claim.queue_ids if queue_id in self.claim.sizes]


def rooms_of(tx: Transaction, claims: Sequence[Claim]) -> list[Room]:
    """Returns the room of each claim, its agent locked until the transaction ends.

    Nobody else gives the agent anything meanwhile, and once a drain is committed nothing is given any more. An earlier
    session of an agent gets nothing, nor does one whose lease is over, even if it still seems to wait: its connection
    may lead nowhere, and what it were given would be lost with it.
    """
    known = agents.lock_agents(tx, {claim.agent_id for claim in claims}) if claims else {}
    holders = {
        (listed.agent.id, listed.agent.session_id): Holder(
            free_slots(listed.agent, listed.taken, tx.now),
            listed.offered_mb,
            listed.running > 0,
            listed.agent.memory_bytes >> 20,
            takes_steps=not refuses(listed.agent),
        )
        for listed in known.values()
    }
    nobody = Holder(0, 0, holds_something=False, takes_steps=False)
    return [Room(claim, holders.get((claim.agent_id, claim.session_id), nobody), claim.want) for claim in claims]
