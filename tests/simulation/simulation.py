"""One simulation: a seed in, what went wrong out. Everything runs in this thread, on virtual time.

A storm of faults passes over replicas, agents and users; after it nothing goes wrong any more, and everything that was
started must come to its end (I28).
"""

import asyncio
import contextlib
import gc
import itertools
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import Message
from sim_agent import AgentHost
from sim_auditor import Auditor
from sim_database import DatabaseClock, ProcessDatabase, SharedDatabase, fresh_database
from sim_locks import RowLocks
from sim_network import Caller, Network
from sim_people import People
from sim_replica import LossyDoorbell, Replica
from sim_trace import Trace
from sim_workload import COMMANDS, HEAVY, USER, ZONE, Visit, draw_dag, draw_deadlines, draw_visits, install
from virtual_loop import NothingLeft, Process, VirtualLoop
from weather import Weather, draw

from towline.v1 import run_service_pb2 as pb
from towline_controlplane.audit.auditor import audit_database
from towline_controlplane.errors import InvalidState, TowlineError, Unavailable
from towline_controlplane.store import agents

_PATIENCE_SECONDS = 400.0
_AFTERMATH_SECONDS = 14.0
"""What is late may still arrive."""
_MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a seed."""

    seed: int
    defects: list[str]
    digest: str
    lines: list[str]
    weather: Weather
    seconds: float
    """Of virtual time."""


def simulate(seed: int, *, keep_trace: bool = False) -> Report:
    """Simulates a seed; the same seed does the same, always."""
    parent = _MEMORY_FOLDER if _MEMORY_FOLDER.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="towline-seed-", dir=parent))
    try:
        with _no_collector():
            simulation = Simulation(seed, folder, keep_trace=keep_trace)
            with simulation.hearing_logs():
                return simulation.report()
    finally:
        _close_files_in(folder)
        shutil.rmtree(folder)


class Simulation:
    """Everything that a seed makes."""

    def __init__(self, seed: int, folder: Path, *, keep_trace: bool) -> None:
        self._seed = seed
        self._folder = folder
        self.weather = draw(self._chance("weather"))
        self.loop = VirtualLoop(self._chance("order"))
        self.defects = self.loop.defects
        self.trace = Trace(self.loop.time, keep=keep_trace)
        self.network = Network(self.loop, self._chance("network"), self.weather, self.trace)
        self._faults = self._chance("faults")
        self._pace = self._chance("pace")
        self._calm = False
        self.clock = DatabaseClock(self.loop.time)
        work = self._chance("workload")
        self.dags = {f"w{number}": draw_dag(work) for number in range(3)}
        draw_deadlines(self._chance("deadlines"), self.dags)
        self.visits = draw_visits(work, list(self.dags), self.weather.storm_seconds)
        file = fresh_database(folder)
        locks = RowLocks(self.defects) if self.weather.replicas > 1 else None
        self._shared = SharedDatabase(file, self.clock, locks, self._draw_lock_pause)
        self._database = self._shared.database
        self.auditor = Auditor(file, self.dags, self.clock, self.defects)
        self.replicas = self._make_replicas()
        self.network.servers = list(self.replicas)
        self.agents = self._make_agents()
        self._people = People(
            *(self._chance("people"), self.loop, self.weather, self.network, self.trace),
            *(self.auditor, self._database, self.agents, self._command),
        )
        self._disks_kept = True

    def report(self) -> Report:
        """Runs it."""
        self.loop.before_step = self._maybe_kill
        self.loop.after_work = self._worked
        self.loop.pace = self._draw_pace
        self.loop.before_burial = self.trace.close
        try:
            self.loop.run(self._main())
        except NothingLeft:
            self.defects.append("nothing moves any more")
        finally:
            self.auditor.close()
            VirtualLoop(random.Random(0)).run(self._database.close())
        return Report(self._seed, self.defects, self.trace.digest, self.trace.lines, self.weather, self.loop.time())

    # The course of it

    async def _main(self) -> None:
        names = [agent.name for agent in self.agents]
        await self._database.write(lambda tx: install(tx, self.dags, names))
        for each in (*self.replicas, *self.agents):
            each.start()
        users = [self.loop.spawn(Process("user"), self._visit(n, visit)) for n, visit in enumerate(self.visits)]
        faults = asyncio.gather(self._weather(), self._people.act())
        await asyncio.sleep(self.weather.storm_seconds)
        await self._audit()
        self._calm = self.network.calm = True
        self.trace.note("world", "the storm is over")
        await faults
        await self._wait_for_ends(users)
        self._check_users(users)
        await asyncio.sleep(self.weather.lease_seconds + _AFTERMATH_SECONDS)
        self.auditor.conclude(disks_kept=self._disks_kept)
        await self._audit()

    async def _audit(self) -> None:
        """Asks the product's own auditor."""
        self.defects.extend(map(str, (await audit_database(self._database)).breaches))

    async def _wait_for_ends(self, users: "list[asyncio.Task[None]]") -> None:
        until = self.loop.time() + _PATIENCE_SECONDS
        someone = Caller("somebody", Process("somebody"), USER.id)
        while self.loop.time() < until:
            await asyncio.sleep(1)
            await self._people.enable_all()
            if not all(user.done() for user in users):
                continue
            unfinished = self.auditor.unfinished()
            if not unfinished:
                return
            for run_id in unfinished:
                await self._decide(someone, run_id)
        states = {
            key: step["state"]
            for key, step in self.auditor.rows("steps").items()
            if key[0] in self.auditor.unfinished()
        }
        self.defects.append(
            f"I28: {self.auditor.unfinished()} did not end: {states}; users: {[u.done() for u in users]}"
        )

    async def _decide(self, someone: Caller, run_id: str) -> None:
        """What only a person can decide."""
        steps = [step for step in self.auditor.rows("steps").values() if step["run_id"] == run_id]
        with contextlib.suppress(InvalidState):
            if self.auditor.row("runs", run_id)["state"] == "PAUSED":
                await self._command(someone, "resume", run_id)
            if any(step["state"] == "PARKED" for step in steps):
                await self._command(someone, "cancel", run_id)

    # Users

    async def _visit(self, number: int, visit: Visit) -> None:
        caller = Caller(f"user-{number}", self.loop.current_process(), USER.id)
        await asyncio.sleep(visit.begins)
        start = pb.StartRunRequest(workflow_id=visit.workflow_id, request_id=f"key-{number}")
        run_id = await self._start(caller, start)
        began = self.loop.time()
        for after, name in sorted(visit.commands):
            await asyncio.sleep(max(0.0, began + after - self.loop.time()))
            with contextlib.suppress(InvalidState):
                await self._command(caller, name, run_id)
        await self._start(caller, start)

    async def _start(self, caller: Caller, request: pb.StartRunRequest) -> str:
        answer = await self._insist(caller, "RunService/StartRun", request)
        self.auditor.started(request.request_id, answer.run.id)
        return answer.run.id

    async def _command(self, caller: Caller, name: str, run_id: str) -> None:
        command = COMMANDS[name]
        await self._insist(caller, command.method, command.request(run_id=run_id, **command.fields))
        if name == "cancel":
            self.auditor.cancelled(run_id)

    async def _insist(self, caller: Caller, method: str, request: Message) -> Any:
        while True:
            try:
                answer = await self.network.call(caller, method, request, 5.0)
            except Unavailable:
                await asyncio.sleep(0.5)
                continue
            except TowlineError as refusal:
                self.trace.note(caller.name, f"{method} refused: {refusal}")
                raise
            self.trace.note(caller.name, f"{method} answered: {answer.run.id} {answer.run.state}")
            return answer

    def _check_users(self, users: "list[asyncio.Task[None]]") -> None:
        for user in users:
            if user.done() and user.exception() is not None:
                self.defects.append(f"a user was refused: {user.exception()!r}")

    # Faults

    async def _weather(self) -> None:
        storm = self.weather.storm_seconds
        plan: list[tuple[float, str]] = []
        plan += [(self._faults.uniform(0, storm * 0.8), "cut") for _ in range(self.weather.partitions)]
        plan += [(self._faults.uniform(0, storm), "jump") for _ in range(self.weather.clock_jumps)]
        plan += [(self._faults.uniform(0, storm * 0.8), "drain") for _ in range(self.weather.drains)]
        mending: list[asyncio.Task[None]] = []
        for when, kind in sorted(plan):
            await asyncio.sleep(max(0.0, when - self.loop.time()))
            if kind == "cut":
                mending.append(asyncio.create_task(self._cut(self._faults.choice(self.agents).name)))
            elif kind == "drain":
                mending.append(asyncio.create_task(self._drain(self._faults.choice(self.agents).name)))
            else:
                self.clock.offset_seconds += self._faults.choice((-120.0, -60.0, 60.0, 120.0))
                self.trace.note("database", f"its clock is off by {self.clock.offset_seconds} s")
        for each in mending:
            await each

    async def _cut(self, name: str) -> None:
        self.trace.note("network", f"cuts {name} off")
        self.network.cut.add(name)
        await asyncio.sleep(self.weather.lease_seconds * self._faults.choice((0.3, 0.9, 1.5, 2.5)))
        self.network.cut.discard(name)
        self.trace.note("network", f"reaches {name} again")

    async def _drain(self, name: str) -> None:
        for drained in (True, False):
            self.trace.note("admin", f"{'drains' if drained else 'undrains'} {name}")
            await self._database.write(lambda tx, drained=drained: agents.set_drained(tx, name, drained=drained))
            await asyncio.sleep(self._faults.choice((0.5, 3.0, 8.0)) if drained else 0)

    def _maybe_kill(self, process: Process) -> None:
        if self._calm or process is self.loop.world:
            return
        for hosts, risk in ((self.replicas, self.weather.crash_replica), (self.agents, self.weather.crash_agent)):
            for host in hosts:
                if host.process is process and risk and self._faults.random() < risk:
                    self._kill(host)

    def _kill(self, host: Replica | AgentHost) -> None:
        if isinstance(host, AgentHost) and host.was_refused:
            return
        self.trace.note(host.process.name, "is killed")
        self.loop.kill(host.process)
        self.network.died(host.process)
        if isinstance(host, AgentHost):
            self._disks_kept &= host.killed()
        else:
            host.database.died()
        back = self._faults.choice((0.05, 1.0, self.weather.lease_seconds, self.weather.lease_seconds * 2))
        self.network.later(back, host.start)

    def _fails(self) -> bool:
        risk = self.weather.database_error
        return not self._calm and risk > 0 and self._faults.random() < risk

    def _draw_pace(self, process: Process) -> tuple[float, float]:
        if process is self.loop.world:
            return 0.0, 0.0
        if self._calm:
            return 0.0001, 0.0001
        mean = self.weather.work_seconds
        slow = self._pace.random() < self.weather.slow_work
        before = self._pace.uniform(1, 6) if slow else self._pace.expovariate(1 / mean)
        return before, self._pace.expovariate(1 / mean)

    def _draw_lock_pause(self) -> float:
        return 0.0 if self._calm else self._pace.choice((0.0, 0.01, 0.3))

    # Watching

    def _worked(self, process: Process) -> None:
        self.auditor.look()

    @contextlib.contextmanager
    def hearing_logs(self) -> Generator[None]:
        """Takes every exception that the product logs for a defect, but for a database that is away."""
        processors: list[Any] = structlog.get_config()["processors"]
        kept = list(processors)
        processors[:] = [self._hear]
        try:
            yield
        finally:
            processors[:] = kept

    def _hear(self, _logger: object, _method: str, event: dict[str, Any]) -> str:
        error = sys.exc_info()[1]
        if event.get("exc_info") and not isinstance(error, Unavailable):
            self.defects.append(f"logged: {event['event']}: {error!r}")
        raise structlog.DropEvent

    # Putting together

    def _chance(self, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}:{purpose}")

    def _make_replicas(self) -> list[Replica]:
        doorbells: list[LossyDoorbell] = []
        chance = self._chance("database")
        names = itertools.count(1)
        return [
            Replica(
                name=f"replica-{number}",
                loop=self.loop,
                weather=self.weather,
                trace=self.trace,
                doorbells=doorbells,
                network=self.network,
                connect=partial(ProcessDatabase, self._shared, self._fails, chance),
                chance=self._chance(f"replica-{number}"),
                names=names,
                folder=self._folder,
                users={USER.id: USER},
                defects=self.defects,
            )
            for number in range(self.weather.replicas)
        ]

    def _make_agents(self) -> list[AgentHost]:
        chance = self._chance("agents")
        return [
            AgentHost(
                name=f"agent-{number}",
                seed=self._seed,
                loop=self.loop,
                weather=self.weather,
                network=self.network,
                trace=self.trace,
                chance=self._chance(f"agent-{number}"),
                slots=chance.choice((HEAVY, 4) if number == 0 else (1, 2, 4)),
                labels=ZONE if number == 0 else {},
                folder=self._folder / f"agent-{number}",
                auditor=self.auditor,
                defects=self.defects,
            )
            for number in range(self.weather.agents)
        ]


@contextlib.contextmanager
def _no_collector() -> Generator[None]:
    """Keeps the collector from ending generators whenever it happens to run; what a seed leaves is collected after."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        gc.enable()


def _close_files_in(folder: Path) -> None:
    """Does what the kernel does for a killed process."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if Path(os.readlink(link)).is_relative_to(folder):
                os.close(int(link.name))
