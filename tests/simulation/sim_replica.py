"""A control plane on virtual time: the real composition over a simulated database, served to a simulated network."""

import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim_database import ProcessDatabase
from sim_network import Caller, Network
from sim_trace import Trace
from virtual_loop import Process, VirtualLoop, context_of
from weather import Weather

from towline_controlplane.bus import Bell, InProcessDoorbell
from towline_controlplane.composition import Parts, assemble
from towline_controlplane.errors import TowlineError, Unavailable
from towline_controlplane.model import User
from towline_controlplane.services import callers
from towline_controlplane.settings import Settings
from towline_controlplane.sources import Sources


@dataclass(eq=False, slots=True)
class LossyDoorbell:
    """The doorbell of one replica, heard by all; rings come late or never (I17)."""

    chance: random.Random
    weather: Weather
    network: Network
    all: "list[LossyDoorbell]"
    ears: InProcessDoorbell = field(default_factory=InProcessDoorbell)

    def ring(self, topics: Iterable[str]) -> None:
        """Wakes everybody who listens."""
        rung = sorted(set(topics))
        self._spread(lambda ears: ears.ring(rung))

    def ring_in_turn(self, counts: Mapping[str, int]) -> None:
        """Wakes some of those in line."""
        rung = dict(sorted(counts.items()))
        self._spread(lambda ears: ears.ring_in_turn(rung))

    def listen(self, topics: Iterable[str], in_turn: Iterable[str] = ()) -> Bell:
        """Returns an ear on `topics`."""
        return self.ears.listen(sorted(set(topics)), sorted(set(in_turn)))

    def _spread(self, ring: Callable[[InProcessDoorbell], None]) -> None:
        for each in self.all:
            if self.network.calm or self.chance.random() >= self.weather.ring_lost:
                self.network.later(self.network.delay(), ring, each.ears)


@dataclass(eq=False)
class Replica:
    """One control plane, from start to kill and again."""

    name: str
    loop: VirtualLoop
    weather: Weather
    network: Network
    trace: Trace
    doorbells: list[LossyDoorbell]
    connect: Callable[[], ProcessDatabase]
    chance: random.Random
    names: "itertools.count[int]"
    folder: Path
    users: dict[str, User]
    defects: list[str]
    process: Process = field(init=False)
    parts: Parts = field(init=False)
    database: ProcessDatabase = field(init=False)
    _starts: int = 0

    def start(self) -> None:
        """Starts a process."""
        self._starts += 1
        self.process = Process(f"{self.name}.{self._starts}")
        self.trace.note(self.process.name, "starts")
        context_of(self.process).run(self._assemble)

    def _assemble(self) -> None:
        settings = Settings.model_validate(
            {
                "data_dir": self.folder,
                "jwt_secret": "a secret of the simulation, long enough",
                "lease_seconds": self.weather.lease_seconds,
                "offer_seconds": self.weather.offer_seconds,
            }
        )
        sources = Sources(
            monotonic=self.loop.time,
            jitter=self.chance.random,
            new_id=lambda: f"id-{next(self.names):04}",
            new_token=lambda: f"token-{next(self.names)}",
        )
        doorbell = LossyDoorbell(self.chance, self.weather, self.network, self.doorbells)
        self.doorbells.append(doorbell)
        self.database = self.connect()
        self.parts = assemble(settings, self.database, doorbell, sources)
        for duty in self.parts.duties:
            self.loop.create_task(self._do(duty))

    async def _do(self, duty: Callable[[], Any]) -> None:
        try:
            await duty()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a defect
            self.defects.append(f"{self.process.name}: a duty ended with {error!r}")

    async def serve(self, caller: Caller, method: str, request: Any) -> Any:
        """Answers a call as the server does."""
        try:
            servicer = await self._enter(caller, method)
            return await getattr(servicer, method.partition("/")[2])(request, _CONTEXT)
        except TowlineError:
            raise
        except Exception as error:
            raise self._defect(method, error) from error

    async def serve_stream(self, caller: Caller, method: str, requests: Any, send: Callable[[Any], None]) -> None:
        """Serves a stream as the server does."""
        try:
            servicer = await self._enter(caller, method)
            responses: AsyncIterator[Any] = getattr(servicer, method.partition("/")[2])(requests, _CONTEXT)
            async for response in responses:
                send(response)
        except TowlineError:
            raise
        except Exception as error:
            raise self._defect(method, error) from error

    async def _enter(self, caller: Caller, method: str) -> Any:
        service = method.partition("/")[0]
        if service == "AgentService":
            callers.enter_agent(await self.parts.accounts.agent_of(caller.credential))
        else:
            callers.enter_user(self.users[caller.credential])
        return next(each.servicer for each in self.parts.services if each.descriptor.name == service)

    def _defect(self, method: str, error: Exception) -> Unavailable:
        self.defects.append(f"{self.process.name}: {method} failed with {error!r}")
        return Unavailable("the server failed")


class _Context:
    """What services ask of a call."""

    async def send_initial_metadata(self, metadata: object) -> None:
        """Nobody waits for it."""


_CONTEXT: Any = _Context()
