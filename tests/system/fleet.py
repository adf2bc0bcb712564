"""Many agents in this process, over real gRPC, with played plugins and one virtual time; and the control planes.

What agents send is counted by its virtual time, which moves in small steps, once everything that was sent is answered.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import structlog
from rig import OWNER

from towline.v1.agent_service_pb2 import PullRequest, PullResponse, ReportRequest, ReportResponse
from towline_agent import grpc_control_plane
from towline_agent.agent import Agent, Options, describe
from towline_agent.clock import Signal
from towline_agent.control_plane import ControlPlaneError
from towline_agent.credentials import Credentials
from towline_agent.enrollment import Identity
from towline_agent.execution import EndReason, Exit, Launch, OnOutput
from towline_agent.grpc_control_plane import GrpcControlPlane, GrpcLeaseRenewal
from towline_agent.heartbeat import Heartbeat
from towline_agent.testing import FakeClock
from towline_agent.workshop import Surroundings
from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.composition import Parts, assemble
from towline_controlplane.model import AgentRecord, Role, User
from towline_controlplane.services.server import ControlPlaneServer, ServerOptions
from towline_controlplane.settings import Settings
from towline_controlplane.sources import Sources
from towline_controlplane.store import agents, users
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.tokens import AGENT_PREFIX, fingerprint

STEP_SECONDS = 0.1
OPTIONS = (
    # All agents share one connection for each control plane, so that their own pace is what is seen.
    *(
        option
        for option in grpc_control_plane.OPTIONS
        if "subchannel" not in option[0] and "reconnect" not in option[0]
    ),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of an agent, at a virtual time, and whether it was answered."""

    agent: str
    method: str
    at: float
    answered: bool


@dataclass(slots=True)
class Tally:
    """All messages of the fleet; those that are not long polls are waited for before time goes on."""

    clock: FakeClock
    sent: list[Sent] = field(default_factory=list[Sent])
    _open: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def counted(self, agent: str, method: str, *, waited_for: bool = True):
        """Counts one message."""
        at, answered = self.clock.now, False
        self._open += waited_for
        self._quiet.clear()
        try:
            yield
            answered = True
        finally:
            self.sent.append(Sent(agent, method, at, answered))
            self._open -= waited_for
            if not self._open:
                self._quiet.set()

    async def quiet(self) -> None:
        """Returns once nothing is waited for, and nothing follows from the answers at once."""
        for _ in range(5):
            await asyncio.sleep(0)
            if self._open:
                await self._quiet.wait()


@dataclass(slots=True)
class MemberClock:
    """The fleet's time, and chance of one's own."""

    shared: FakeClock
    chance: random.Random

    def monotonic(self) -> float:
        return self.shared.monotonic()

    def micros(self) -> int:
        return self.shared.micros()

    def jitter(self) -> float:
        return self.chance.random()

    def new_id(self) -> str:
        return self.shared.new_id()

    def call_later(self, seconds: float, callback: Callable[[], object]):
        return self.shared.call_later(seconds, callback)


class Plays:
    """The plugins of the whole fleet: each runs until the test ends it, and is counted."""

    def __init__(self) -> None:
        self.executions: Counter[str] = Counter()
        self.running: dict[str, asyncio.Future[Exit]] = {}
        self.all_end = False

    async def run(self, launch: Launch, on_output: OnOutput) -> Exit:
        node = launch.environment["TOWLINE_NODE_ID"]
        self.executions[node] += 1
        end = self.running[node] = asyncio.get_running_loop().create_future()
        if self.all_end:
            self.end(node)
        return await end

    def end(self, *nodes: str) -> None:
        for node in nodes:
            self.running.pop(node).set_result(Exit(EndReason.EXITED, exit_code=0, result=b"null"))

    def stop(self, key: str) -> None: ...
    def freeze(self, key: str) -> None: ...
    def thaw(self, key: str) -> None: ...
    async def close(self) -> None: ...


class CountedControlPlane(GrpcControlPlane):
    """Counts what the event loop of an agent sends."""

    def __init__(self, servers: str, credentials: Credentials, name: str, tally: Tally) -> None:
        super().__init__(servers, credentials)
        self._name = name
        self._tally = tally

    async def connected(self) -> None:
        """Returns once a call finds its server."""
        await self._channel.channel_ready()

    async def pull(self, request: PullRequest) -> PullResponse:
        with self._tally.counted(self._name, "Pull", waited_for=False):
            return await super().pull(request)

    async def report(self, request: ReportRequest) -> ReportResponse:
        with self._tally.counted(self._name, "Report"):
            return await super().report(request)


class WatchedRenewal(GrpcLeaseRenewal):
    """Tells when its connections are there."""

    def connected(self) -> None:
        """Returns once a call finds any of its servers."""
        for channel in self._channels:
            grpc.channel_ready_future(channel).result()


class FleetPulse:
    """Makes a heartbeat beat by virtual time; each call is the product's own, in a thread."""

    def __init__(self, renewal: GrpcLeaseRenewal, clock: MemberClock, name: str, tally: Tally) -> None:
        self._renewal = renewal
        self._due = Signal(clock)
        self._name = name
        self._tally = tally
        self._task: asyncio.Task[None] | None = None

    def start(self, heartbeat: Heartbeat) -> None:
        self._task = asyncio.create_task(self._run(heartbeat))

    def wake(self) -> None:
        self._due.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._renewal.close()

    async def _run(self, heartbeat: Heartbeat) -> None:
        while not heartbeat.stopped:
            beat = heartbeat.begin()
            try:
                with self._tally.counted(self._name, "Sync"):
                    answer = await asyncio.to_thread(self._renewal.sync, beat.request, 30.0)
            except ControlPlaneError as error:
                answer = error
            await self._due.wait(heartbeat.conclude(beat, answer))


@dataclass(slots=True)
class Fleet:
    """Agents with one slot each, and everything that they send and run."""

    folder: Path
    clock: FakeClock
    tally: Tally
    plays: Plays
    servers: list[str]
    _lives: list["asyncio.Task[None]"] = field(default_factory=list["asyncio.Task[None]"])
    _links: list[tuple[CountedControlPlane, WatchedRenewal]] = field(
        default_factory=list[tuple[CountedControlPlane, WatchedRenewal]]
    )

    def start(self, names: list[str]) -> None:
        """Starts the agents, all at once."""
        for name in names:
            clock = MemberClock(self.clock, random.Random(name))
            self._lives.append(asyncio.create_task(self._live(name, clock)))

    async def until(self, holds: Callable[[], object], at_most: float = 60.0) -> None:
        """Lets time pass until something holds."""
        gives_up_at = self.clock.now + at_most
        while not holds():
            assert self.clock.now < gives_up_at
            await self.passed(STEP_SECONDS)

    async def passed(self, seconds: float) -> None:
        """Lets time pass."""
        until = self.clock.now + seconds - STEP_SECONDS / 2
        while self.clock.now < until:
            self.clock.advance(STEP_SECONDS)
            await self.tally.quiet()

    async def connected(self) -> None:
        """Returns once every agent knows that its connections are there again; no time passes."""
        for control_plane, renewal in self._links:
            await control_plane.connected()
            await asyncio.to_thread(renewal.connected)

    async def close(self) -> None:
        """Ends all agents where they are."""
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)

    async def _live(self, name: str, clock: MemberClock) -> None:
        credentials = Credentials(Identity(name, f"{AGENT_PREFIX}{name}"), lambda identity: None)
        servers = ",".join(self.servers)
        control_plane = CountedControlPlane(servers, credentials, name, self.tally)
        renewal = WatchedRenewal(servers, credentials)
        self._links.append((control_plane, renewal))
        pulse = FleetPulse(renewal, clock, name, self.tally)
        options = Options(describe(1, {}, "1"), self.folder / name, Surroundings())
        try:
            await Agent(control_plane, pulse, self.plays, options, lambda: 1 << 30, clock).run()
        finally:
            await control_plane.close()


@dataclass(slots=True)
class ControlPlanes:
    """Replicas of this process on one database, lost and started again on their ports."""

    folder: Path
    url: str
    clock: FakeClock
    ports: list[int]
    running: list[Parts] = field(default_factory=list[Parts])
    _ends: list[Callable[[], Awaitable[None]]] = field(default_factory=list[Callable[[], Awaitable[None]]])
    _doorbells: list[InProcessDoorbell] = field(default_factory=list[InProcessDoorbell])

    async def start(self) -> None:
        """Starts all of them."""
        for number in range(len(self.ports)):
            await self._start(number)

    async def lose(self) -> None:
        """Cuts all connections at once, whatever is under way on them."""
        for end in self._ends:
            await end()
        self.running.clear()
        self._ends.clear()
        self._doorbells.clear()

    async def _start(self, number: int) -> None:
        settings = Settings.model_validate(
            {"JWT_SECRET": "a secret of the tests, long enough", "TOWLINE_DATA_DIR": self.folder}
        )
        settings.spool_folder.mkdir(parents=True, exist_ok=True)
        database = Database.open(self.url, clock=self.clock.micros)

        def carry(calls: Mapping[str, int]) -> None:
            for each in self._doorbells:
                if each is not own:
                    each.hear(calls)

        own = InProcessDoorbell(carry)
        self._doorbells.append(own)
        parts = assemble(settings, database, own, Sources(monotonic=self.clock.monotonic))
        server = ControlPlaneServer(parts.services, parts.guard, ServerOptions(port=self.ports[number]))
        self.ports[number] = await server.start()
        duties = [asyncio.ensure_future(duty()) for duty in parts.duties]

        async def end() -> None:
            await server.stop(0)
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)
            await database.close()

        self.running.append(parts)
        self._ends.append(end)


@contextlib.asynccontextmanager
async def fleet(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, *, size: int, replicas: int
) -> AsyncGenerator[tuple[Fleet, ControlPlanes]]:
    """Yields running control planes and enrolled agents of which none has started."""
    monkeypatch.setattr(grpc_control_plane, "OPTIONS", OPTIONS)
    clock = FakeClock()
    clock.now = 1_700_000_000.0
    planes = ControlPlanes(folder / "data", url, clock, [0] * replicas)
    await planes.start()
    names = [f"agent-{number}" for number in range(size)]

    def enroll(tx: Transaction) -> None:
        users.insert_user(tx, User(OWNER, "o@example.com", "O", f"$2b${'x' * 56}", Role.USER, 1, tx.now))
        for name in names:
            agents.insert_agent(tx, AgentRecord(name, name, fingerprint(f"{AGENT_PREFIX}{name}"), tx.now))

    await planes.running[0].agents.database.write(enroll)
    made = Fleet(folder, clock, Tally(clock), Plays(), [f"127.0.0.1:{port}" for port in planes.ports])
    try:
        with structlog.testing.capture_logs():  # thousands of lines about a control plane that is away
            made.start(names)
            yield made, planes
    finally:
        await made.close()
        await planes.lose()
