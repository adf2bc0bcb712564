"""Which queues an agent may claim from, kept at hand so that a poll costs no query."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from towline_controlplane.bus import QUEUES_TOPIC, Doorbell
from towline_controlplane.engine.placement import satisfies
from towline_controlplane.store import queues
from towline_controlplane.store.database import Database


@dataclass(slots=True)
class QueueIndex:
    """All queues with the labels that they require. Refreshed when this process makes one, and periodically."""

    database: Database
    doorbell: Doorbell
    _requirements: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    _loaded: bool = False

    async def matching(self, labels: Mapping[str, str]) -> frozenset[str]:
        """Returns the ids of the queues that an agent with these labels satisfies."""
        if not self._loaded:
            await self.refresh()
        return frozenset(queue for queue, required in self._requirements.items() if satisfies(labels, required))

    async def refresh(self) -> None:
        """Reads the queues again, and rings if any is new."""
        known, self._requirements = self._requirements, await self.database.read(queues.all_queues)
        self._loaded = True
        if self._requirements.keys() - known.keys():
            self.doorbell.ring([QUEUES_TOPIC])
