"""Which queues an agent may claim from, kept at hand so that neither a poll nor a start costs a query."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from towline_controlplane.bus import MATCHING_TOPIC, QUEUES_TOPIC, Doorbell
from towline_controlplane.engine.allowance import NO_RULES, Platform
from towline_controlplane.engine.placement import believed_level, isolates_network, satisfies
from towline_controlplane.model import AgentRecord
from towline_controlplane.requirements import Requirements, Size
from towline_controlplane.store import queues
from towline_controlplane.store.database import Database

_REFRESH_SECONDS = 1.0
_Abilities: TypeAlias = tuple[frozenset[tuple[str, str]], int, bool, tuple[str, ...], int, tuple[str, ...], int, int]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class QueueIndex:
    """All queues with their requirements; `run` keeps up with what other processes make."""

    database: Database
    doorbell: Doorbell
    platform: Platform = NO_RULES
    _requirements: Mapping[str, Requirements] = field(default_factory=dict[str, Requirements])
    _matching: dict[_Abilities, frozenset[str]] = field(default_factory=dict[_Abilities, frozenset[str]])
    """By what an agent can do, since the last refresh."""
    sizes: Mapping[str, Size] = field(default_factory=dict[str, Size])
    """What steps of a queue take, where that is more than a slot and the usual memory."""
    _loaded: bool = False

    async def matching(self, agent: AgentRecord) -> frozenset[str]:
        """Returns the ids of the queues whose requirements an agent meets."""
        if not self._loaded:
            await self.refresh()
        confines = believed_level(agent), isolates_network(agent)
        able = *confines, agent.plugins, agent.protocol_version, agent.lacking
        key = frozenset(agent.labels.items()), *able, agent.slots, agent.memory_bytes
        if key not in self._matching:
            self._matching[key] = frozenset(
                queue_id
                for queue_id, asked in self._requirements.items()
                if satisfies(self.platform.enforced(asked), agent)
            )
        return self._matching[key]

    def knows(self, queue_ids: Collection[str]) -> bool:
        """Tells whether this process knows all of these queues."""
        return self._requirements.keys() >= set(queue_ids)

    async def ensure(self, by_id: Mapping[str, Requirements]) -> None:
        """Makes those of the queues that are not there, and known; costs nothing if this process knows them all."""
        if self.knows(by_id.keys()):
            return
        await self.database.write(lambda tx: queues.ensure_queues(tx, by_id))
        if await self.refresh():
            self.doorbell.ring([QUEUES_TOPIC])

    async def refresh(self) -> bool:
        """Reads the queues again, and rings if any is new; returns whether one is."""
        known, self._requirements = self._requirements, await self.database.read(queues.all_queues)
        self.sizes = {
            queue_id: self.platform.enforced(asked).size
            for queue_id, asked in self._requirements.items()
            if asked.size != Size()
        }
        self._loaded = True
        self._matching.clear()
        is_news = self._requirements.keys() != known.keys()
        if is_news:
            self.doorbell.ring([MATCHING_TOPIC])
        return is_news

    async def run(self) -> None:
        """Refreshes when another process has made queues, at the latest every second, until it is cancelled."""
        async with self.doorbell.listen([QUEUES_TOPIC]) as bell:
            while True:
                try:
                    await self.refresh()
                except Exception:
                    log.exception("tick failed", duty="QueueIndex")
                await bell.wait(_REFRESH_SECONDS)
