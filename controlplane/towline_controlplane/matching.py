"""Which queues an agent may claim from, kept at hand so that a poll costs no query."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from towline_controlplane.bus import MATCHING_TOPIC, QUEUES_TOPIC, Doorbell
from towline_controlplane.engine.placement import satisfies
from towline_controlplane.store import queues
from towline_controlplane.store.database import Database

_REFRESH_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class QueueIndex:
    """All queues with the labels that they require; `run` keeps up with what other processes make."""

    database: Database
    doorbell: Doorbell
    _requirements: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    _matching: dict[frozenset[tuple[str, str]], frozenset[str]] = field(
        default_factory=dict[frozenset[tuple[str, str]], frozenset[str]]
    )
    """By labels, since the last refresh."""
    _loaded: bool = False

    async def matching(self, labels: Mapping[str, str]) -> frozenset[str]:
        """Returns the ids of the queues that an agent with these labels satisfies."""
        if not self._loaded:
            await self.refresh()
        key = frozenset(labels.items())
        if key not in self._matching:
            self._matching[key] = frozenset(
                queue for queue, required in self._requirements.items() if satisfies(labels, required)
            )
        return self._matching[key]

    async def refresh(self) -> bool:
        """Reads the queues again, and rings if any is new; returns whether one is."""
        known, self._requirements = self._requirements, await self.database.read(queues.all_queues)
        self._loaded = True
        self._matching.clear()
        is_news = self._requirements.keys() != known.keys()
        if is_news:
            self.doorbell.ring([MATCHING_TOPIC])
        return is_news

    async def announce(self) -> None:
        """Makes the queues known that this process has just made, here and elsewhere."""
        if await self.refresh():
            self.doorbell.ring([QUEUES_TOPIC])

    async def run(self) -> None:
        """Refreshes when another process has made queues, at the latest every second, until it is cancelled."""
        async with self.doorbell.listen([QUEUES_TOPIC]) as bell:
            while True:
                try:
                    await self.refresh()
                except Exception:
                    log.exception("tick failed", duty="QueueIndex")
                await bell.wait(_REFRESH_SECONDS)
