"""What an admin and users do at times that hurt: they freeze runs of which something runs, and disable agents."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sim_agent import AgentHost
from sim_auditor import Auditor
from sim_network import Caller, Network
from sim_trace import Trace
from sim_workload import USER
from virtual_loop import Process, VirtualLoop
from weather import Weather

from towline.v1.agent_admin_service_pb2 import DisableAgentRequest
from towline_controlplane.errors import InvalidState, Unavailable
from towline_controlplane.store import agents
from towline_controlplane.store.database import Database

Command = Callable[[Caller, str, str], Awaitable[None]]
"""Does something, by its name, to a run."""

_LOOKS = 50
"""For something that runs, before they give up."""


@dataclass(frozen=True, slots=True)
class People:
    """Their deeds, drawn from the seed."""

    chance: random.Random
    loop: VirtualLoop
    weather: Weather
    network: Network
    trace: Trace
    auditor: Auditor
    database: Database
    hosts: Sequence[AgentHost]
    command: Command

    async def act(self) -> None:
        """Does all that the weather says, and returns once it is done."""
        until = self.weather.storm_seconds * 0.8
        deeds: list[tuple[float, Callable[[], Coroutine[Any, Any, None]]]] = []
        deeds += [(self.chance.uniform(0, until), self._freeze_what_runs) for _ in range(self.weather.frosts)]
        deeds += [(self.chance.uniform(0, until), self._ban) for _ in range(self.weather.bans)]
        done: list[asyncio.Task[None]] = []
        for when, deed in sorted(deeds, key=lambda each: each[0]):
            await asyncio.sleep(max(0.0, when - self.loop.time()))
            done.append(asyncio.create_task(deed()))
        for each in done:
            await each

    async def enable_all(self) -> None:
        """Takes back what an admin did, or a message that came twice and late, and starts who ended by it."""
        for host in self.hosts:
            if host.may_be_refused:
                await self.database.write(lambda tx, name=host.name: agents.set_disabled(tx, name, disabled=False))
                host.start_if_refused()

    async def _freeze_what_runs(self) -> None:
        """For longer than most plugins take: what only says that it stands still has ended by then."""
        for _ in range(_LOOKS):
            running = [each for each in self.auditor.executions if each.ended is None and each.process.alive]
            if running:
                break
            await asyncio.sleep(0.2)
        else:
            return
        run_id = self.chance.choice(running).run_id
        someone = Caller("somebody", Process("somebody"), USER.id)
        for name in ("freeze", "resume"):
            with contextlib.suppress(InvalidState):
                await self.command(someone, name, run_id)
            await asyncio.sleep(self.chance.choice((5.0, 9.0)) if name == "freeze" else 0)

    async def _ban(self) -> None:
        host = self.chance.choice(self.hosts)
        host.may_be_refused = True
        self.auditor.banned.add(host.name)
        self.trace.note("admin", f"disables {host.name}")
        admin = Caller("admin", Process("admin"), USER.id)
        request = DisableAgentRequest(agent_id=host.name)
        while True:
            try:
                await self.network.call(admin, "AgentAdminService/DisableAgent", request, 5.0)
                break
            except Unavailable:
                await asyncio.sleep(0.5)
        await asyncio.sleep(self.chance.choice((0.5, 3.0, 8.0)))
        await self.enable_all()
