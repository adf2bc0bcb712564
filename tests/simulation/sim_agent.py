"""An agent on virtual time: the real agent over the simulated network, and processes that are only played.

What a plugin does is drawn from the seed and the hand-out, so that it is the same however the agent gets to it.
"""

import asyncio
import json
import random
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
from played_clock import PlayedClock
from sim_artifacts import NoArtifacts
from sim_network import Caller, Network
from sim_trace import Trace
from sim_workload import credential_of
from virtual_loop import Process, VirtualLoop
from weather import Weather

from towline.v1 import agent_service_pb2 as pb
from towline.v1.agent_pb2 import AgentInfo
from towline_agent.agent import PROTOCOL_VERSION, Agent, Options
from towline_agent.control_plane import ControlPlaneError, CredentialRefused, RequestRefused
from towline_agent.execution import EndReason, Exit, Launch, OnOutput, OutputStream
from towline_agent.grpc_control_plane import CALL_SECONDS, PULL_GRACE_SECONDS, refusal
from towline_agent.heartbeat import Heartbeat
from towline_agent.workshop import Surroundings
from towline_controlplane.errors import TowlineError

_HANG_SECONDS = 10_000.0


@dataclass(eq=False, slots=True)
class Execution:
    """A plugin process that really ran."""

    run_id: str
    node_id: str
    attempt: int
    key: str
    """Of the hand-out."""
    process: Process
    inputs: Any
    """What it was given of its predecessors."""
    began: float
    ended: float | None = None
    output: bytes | None = None
    """What it succeeded with."""
    clock: PlayedClock | None = None


class SimulatedClock:
    """The clock of an agent: virtual, and its chance the seed's."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self._loop = loop
        self._chance = chance

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def micros(self) -> int:
        """The same as microseconds."""
        return int(self._loop.time() * 1_000_000)

    def jitter(self) -> float:
        """A number from 0 to 1."""
        return self._chance.random()

    def new_id(self) -> str:
        """The time, then what the seed has drawn, so that later ids are greater."""
        return f"{self.micros():016x}{self._chance.getrandbits(64):016x}"

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Runs `callback` after `seconds`."""
        return self._loop.call_later(seconds, callback)


@dataclass(slots=True)
class SentLogs:
    """What agents have ever sent of the log of each hand-out: run, node, attempt, epoch."""

    defects: list[str]
    texts: dict[tuple[str, str, int, int], bytes] = field(default_factory=dict[tuple[str, str, int, int], bytes])

    async def noting(self, requests: AsyncIterator[pb.AppendLogsRequest]) -> AsyncIterator[pb.AppendLogsRequest]:
        """Passes requests on and remembers their bytes."""
        async for request in requests:
            lease = request.lease
            key = (lease.run_id, lease.node_id, lease.attempt, lease.epoch)
            known = self.texts.get(key, b"")
            again, new = known[request.offset : request.offset + len(request.data)], len(known) - request.offset
            if request.offset > len(known) or not request.data.startswith(again):
                self.defects.append(f"the log of {key} was sent in two versions")
            self.texts[key] = known + request.data[new:]
            yield request


class Link(NoArtifacts):
    """The agent's side of the network."""

    def __init__(self, network: Network, caller: Caller, sent_logs: SentLogs) -> None:
        self._network = network
        self._caller = caller
        self._sent_logs = sent_logs
        self.on_answer: Callable[[Any, Any], None] = lambda request, answer: None
        """Called with each call that was answered."""

    async def enroll(self, request: pb.EnrollRequest) -> pb.EnrollResponse:
        """Never asked for: agents of the simulation are enrolled."""
        raise RequestRefused("enrolled already")

    async def pull(self, request: pb.PullRequest) -> pb.PullResponse:
        """Waits for work."""
        wait = request.wait.ToTimedelta().total_seconds()
        return await self._call("Pull", request, wait + PULL_GRACE_SECONDS)

    async def report(self, request: pb.ReportRequest) -> pb.ReportResponse:
        """Ends attempts."""
        return await self._call("Report", request, CALL_SECONDS)

    async def sync(self, request: pb.SyncRequest, seconds: float) -> pb.SyncResponse:
        """Renews the leases."""
        return await self._call("Sync", request, seconds)

    async def append_logs(self, requests: AsyncIterator[pb.AppendLogsRequest]) -> AsyncIterator[pb.AppendLogsResponse]:
        """Opens a stream."""
        try:
            async for answer in self._network.stream(
                self._caller, "AgentService/AppendLogs", self._sent_logs.noting(requests)
            ):
                self.on_answer(None, answer)
                yield answer
        except TowlineError as error:
            raise _refusal(error) from error

    async def fetch_plugin(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Never asked for: all plugins are built in."""
        raise RequestRefused("no such bundle")
        yield b""

    async def _call(self, method: str, request: Any, seconds: float) -> Any:
        try:
            answer = await self._network.call(self._caller, f"AgentService/{method}", request, seconds)
        except TowlineError as error:
            raise _refusal(error) from error
        self.on_answer(request, answer)
        return answer


def _refusal(error: TowlineError) -> ControlPlaneError:
    return refusal(grpc.StatusCode[error.status], error.reason, error.message, error.retry_seconds or 0.0)


class TaskPulse:
    """Makes the heartbeat beat in the event loop, which nothing else can hold up here."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, heartbeat: Heartbeat) -> None:
        """Makes one Sync after the other."""
        self._task = asyncio.create_task(self._run(heartbeat))

    def wake(self) -> None:
        """Makes the next one happen now."""
        self._due.set()

    async def stop(self) -> None:
        """Ends them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, heartbeat: Heartbeat) -> None:
        while not heartbeat.stopped:
            beat = heartbeat.begin()
            try:
                answer = await self._link.sync(beat.request, beat.timeout_seconds)
            except ControlPlaneError as error:
                answer = error
            try:
                async with asyncio.timeout(heartbeat.conclude(beat, answer)):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()


class SimulatedSupervisor:
    """Plays processes: each takes some time, writes some lines, and ends in one of the ways that plugins end."""

    def __init__(self, host: "AgentHost", process: Process) -> None:
        self._host = host
        self._process = process
        self._stops: dict[str, asyncio.Event] = {}
        self._clocks: dict[str, PlayedClock] = {}

    async def run(self, launch: Launch, on_output: OnOutput) -> Exit:
        """Plays one attempt."""
        execution = self._begin(launch)
        stop = self._stops[launch.key] = asyncio.Event()
        clock = self._clocks[launch.key] = execution.clock = PlayedClock(self._host.loop)
        began = asyncio.get_running_loop().time()
        playing = asyncio.create_task(self._play(launch, on_output, clock))
        stopping = asyncio.create_task(stop.wait())
        passing = asyncio.create_task(clock.spend(launch.timeout_seconds))
        try:
            await asyncio.wait([playing, stopping, passing], return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                end = playing.result()
            else:
                end = Exit(EndReason.STOPPED if stopping.done() else EndReason.TIMEOUT)
        finally:
            for task in (playing, stopping, passing):
                task.cancel()
            del self._stops[launch.key], self._clocks[launch.key]
            execution.ended = self._host.loop.time()
        if end.reason in (EndReason.EXITED, EndReason.TIMEOUT):
            self._host.auditor.ended(execution)
        if end.reason is EndReason.EXITED and end.exit_code == 0:
            execution.output = end.result
        self._host.trace.note(self._process.name, f"ended {_named(execution)}: {end.reason} {end.exit_code}")
        return Exit(end.reason, end.exit_code, result=end.result, elapsed_seconds=self._host.loop.time() - began)

    def stop(self, key: str) -> None:
        """Makes `run` answer STOPPED."""
        if key in self._stops:
            self._stops[key].set()

    def freeze(self, key: str) -> None:
        """Stops its time."""
        if key in self._clocks:
            self._clocks[key].freeze()

    def thaw(self, key: str) -> None:
        """Lets it go on."""
        if key in self._clocks:
            self._clocks[key].thaw()

    async def close(self) -> None:
        """Nothing to close."""

    def _begin(self, launch: Launch) -> Execution:
        given = launch.environment
        execution = Execution(
            run_id=given["TOWLINE_RUN_ID"],
            node_id=given["TOWLINE_NODE_ID"],
            attempt=int(given["TOWLINE_ATTEMPT"]),
            key=launch.key,
            process=self._process,
            inputs=json.loads(launch.stdin)["inputs"],
            began=self._host.loop.time(),
        )
        self._host.trace.note(self._process.name, f"runs {_named(execution)}")
        self._host.executed(execution)
        return execution

    async def _play(self, launch: Launch, on_output: OnOutput, clock: PlayedClock) -> Exit:
        # By hand-out: a rerun may end differently.
        chance = random.Random(f"{self._host.seed}:{launch.key}")
        seconds = chance.choice((0.0, 0.01, 0.5, 2.0, 6.0))
        lines = chance.choice((0, 0, 1, 3))
        for number in range(lines):
            on_output(OutputStream.STDOUT, f"{launch.key} {number}\n".encode() * chance.choice((1, 20)))
            await clock.spend(seconds / lines)
        if lines == 0:
            await clock.spend(seconds)
        kind = chance.choices(("ok", "transient", "permanent", "hang"), (12, 3, 1, 1))[0]
        if kind == "hang":
            await clock.spend(_HANG_SECONDS)
        if kind == "ok":
            output = json.dumps({"by": launch.key, "n": chance.randrange(4)}).encode()
            return Exit(EndReason.EXITED, exit_code=0, result=output)
        return Exit(EndReason.EXITED, exit_code=75 if kind == "transient" else 1)


class Watcher(Protocol):
    """Who is told what agents see."""

    executions: list[Execution]
    sent_logs: SentLogs

    def executing(self, execution: Execution) -> None:
        """A plugin has begun."""
        ...

    def weight_of(self, execution: Execution) -> int:
        """Returns the slots that an execution takes."""
        ...

    def ended(self, execution: Execution) -> None:
        """A plugin has ended by itself, or for want of time."""
        ...

    def answered(self, request: Any, answer: Any) -> None:
        """A call was answered."""
        ...


@dataclass(eq=False)
class AgentHost:
    """A machine with an agent on it, which is killed and started again."""

    name: str
    seed: int
    loop: VirtualLoop
    weather: Weather
    network: Network
    trace: Trace
    chance: random.Random
    slots: int
    labels: dict[str, str]
    folder: Path
    auditor: Watcher
    defects: list[str]
    process: Process = field(init=False)
    may_be_refused: bool = False
    """An admin has disabled it, or a late message may."""
    was_refused: bool = False
    """Its process has ended by that."""
    _starts: int = 0

    def start_if_refused(self) -> None:
        """Starts a process if the last one was refused."""
        if self.was_refused:
            self.start()

    def start(self) -> None:
        """Starts a process."""
        self._starts += 1
        self.was_refused = False
        self.process = Process(f"{self.name}.{self._starts}")
        self.trace.note(self.process.name, "starts")
        self.loop.spawn(self.process, self._live(self.process))

    def killed(self) -> bool:
        """Ends the plugin processes with their agent; tells whether the disk has survived."""
        for execution in self.auditor.executions:
            if execution.process is self.process and execution.ended is None:
                execution.ended = self.loop.time()
        if self.chance.random() < self.weather.lose_disk:
            self.trace.note(self.process.name, "loses its disk")
            shutil.rmtree(self.folder, ignore_errors=True)
            return False
        return True

    def executed(self, execution: Execution) -> None:
        """Notes that a plugin runs; no more of them than there are slots (I19)."""
        self.auditor.executions.append(execution)
        self.auditor.executing(execution)
        running = [each for each in self.auditor.executions if each.process is self.process and each.ended is None]
        taken = sum(map(self.auditor.weight_of, running))
        if taken > self.slots:
            self.defects.append(f"I19: {self.process.name} runs what takes {taken} of its {self.slots} slots")

    async def _live(self, process: Process) -> None:
        caller = Caller(self.name, process, credential_of(self.name))
        link = Link(self.network, caller, self.auditor.sent_logs)
        link.on_answer = self.auditor.answered
        info = AgentInfo(slots=self.slots, labels=self.labels, protocol_version=PROTOCOL_VERSION)
        options = Options(info, self.folder, Surroundings())
        clock = SimulatedClock(self.loop, self.chance)
        agent = Agent(link, TaskPulse(link), SimulatedSupervisor(self, process), options, lambda: 1 << 30, clock)
        try:
            await agent.run()
        except CredentialRefused as error:
            self.trace.note(process.name, f"is refused: {error}")
            self.was_refused = True
            if not self.may_be_refused:
                self.defects.append(f"{process.name} was refused by {error!r}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a defect
            self.defects.append(f"{process.name} ended with {error!r}")


def _named(execution: Execution) -> str:
    return f"{execution.run_id}/{execution.node_id}#{execution.attempt} ({execution.key[:6]})"
