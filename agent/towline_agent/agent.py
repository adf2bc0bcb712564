"""The agent put together: its loops, the heartbeat that renews its leases, and the ways in which it ends.

Ends cleanly by `drain` (ask for nothing more, wait for what runs, report it, within a bound), at once by cancellation,
and with AgentMustStop when the control plane has given its place away; then nothing is left running either.
"""

import asyncio
import importlib.util
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from towline.v1.agent_pb2 import AgentInfo
from towline.v1.agent_service_pb2 import Directive
from towline_agent.artifact_inputs import ArtifactInputs
from towline_agent.artifact_spool import ArtifactSpool
from towline_agent.artifacts import Artifacts
from towline_agent.attempts import Attempts
from towline_agent.clock import Clock, Signal
from towline_agent.control_plane import AgentMustStop, ControlPlane
from towline_agent.demands import describe_sandbox
from towline_agent.disk_floor import DiskFloor, Reserve, free_bytes_of
from towline_agent.execution import Supervisor
from towline_agent.heartbeat import Heartbeat
from towline_agent.holdings import Holdings
from towline_agent.intake import Intake
from towline_agent.log_spool import LogSpool
from towline_agent.log_stream import LogStream
from towline_agent.outbox import Outbox
from towline_agent.plugin_files import PluginShelf
from towline_agent.pull import PullLoop
from towline_agent.pulse import Pulse
from towline_agent.report import ReportLoop
from towline_agent.sandbox.standing import UNPROVED, Standing
from towline_agent.session import Ended, Fenced, Notice, Renewed, Session
from towline_agent.spool import ResultSpool
from towline_agent.workshop import Surroundings, Workshop
from towline_plugins.catalog import BUILTINS

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

PROTOCOL_VERSION = 2
"""Of the agent protocol; rises with each minor release in which nodes may ask something new of their agents."""
FAREWELL_SECONDS = 5.0
"""How long a drained agent tries to hand over its last results and logs."""


RESERVE_BYTES = 32 * 1024 * 1024
"""Of the disk floor, kept for results that do not fit elsewhere."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent is, beside whom it works with."""

    info: AgentInfo
    state_dir: Path
    surroundings: Surroundings
    drain_seconds: float = 30.0
    disk_floor_bytes: int = 0
    """Free space of the disk below which no more steps are taken."""
    plugin_cache_bytes: int = 4 << 30
    artifact_spool_bytes: int = 4 << 30
    artifact_cache_bytes: int = 4 << 30


def describe(
    slots: int,
    labels: Mapping[str, str],
    version: str,
    plugins: Sequence[str] = (),
    standing: Standing = UNPROVED,
    memory_bytes: int = 0,
) -> AgentInfo:
    """What this machine says of itself."""
    system = f"{platform.system()}/{platform.machine()}".lower()
    return AgentInfo(
        slots=slots,
        labels=labels,
        version=version,
        hostname=platform.node(),
        platform=system,
        sandbox=describe_sandbox(standing),
        plugins=plugins,
        protocol_version=PROTOCOL_VERSION,
        lacking=lacking(),
        memory_bytes=memory_bytes,
    )


def lacking() -> list[str]:
    """Returns the built-ins whose libraries are not installed here."""
    return [each.name for each in BUILTINS.values() if not all(importlib.util.find_spec(need) for need in each.needs)]


class Agent:
    """One agent; `run` is its whole life."""

    def __init__(
        self,
        control_plane: ControlPlane,
        pulse: Pulse,
        supervisor: Supervisor,
        options: Options,
        free_memory: Callable[[], int],
        clock: Clock,
    ) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        """Called after the first accepted Sync."""
        self._options = options
        self._clock = clock
        self._pulse = pulse
        self._draining = asyncio.Event()
        self._is_drained = False
        self._progress = Signal(clock)
        self._ended = asyncio.Event()
        self._end: Exception | None = None
        self._holdings = Holdings(clock, self._sync_now)
        self._session = Session(clock, self._introduce)
        self._intake = Intake(options.info.slots, self._holdings, free_memory, clock)
        self._outbox = Outbox(ResultSpool(options.state_dir / "results"), clock)
        self._holdings.take_over(self._outbox.leases)
        self._logs = LogSpool(options.state_dir / "logs", clock)
        self._log_stream = LogStream(control_plane, self._session, clock)
        self._plugins = PluginShelf(
            *(options.state_dir, control_plane, clock, options.plugin_cache_bytes),
            shared=bool(options.surroundings.uids),
        )
        cached = options.state_dir / "inputs"
        inputs = ArtifactInputs(cached, control_plane, clock, options.artifact_cache_bytes)
        self._workshop = Workshop(options.state_dir / "work", self._plugins, inputs, options.surroundings)
        spool = ArtifactSpool(options.state_dir / "artifacts", options.artifact_spool_bytes)
        self._artifacts = Artifacts(spool, control_plane, self._session, clock)
        logs, results = (self._logs, self._log_stream), (self._outbox, self._artifacts)
        self._attempts = Attempts(self._holdings, self._intake.slots, supervisor, self._workshop, logs, results)
        self._attempts.concluded = self._log_stream.emptied = self._progress.set
        self._pull = PullLoop(control_plane, self._session, self._intake, self._outbox, self._attempts, clock)
        self._report = ReportLoop(control_plane, self._session, self._intake, self._outbox, self._attempts, clock)
        reserve = Reserve(options.state_dir / "reserve", min(options.disk_floor_bytes // 4, RESERVE_BYTES))
        self._outbox.make_room = reserve.give_up
        free = partial(free_bytes_of, options.state_dir)
        self._disk = DiskFloor(options.disk_floor_bytes, free, reserve, clock, self._disk_changed)
        hear = partial(asyncio.get_running_loop().call_soon_threadsafe, self._hear)
        self._heartbeat = Heartbeat(self._session.id, options.info, self._holdings.snapshot, hear, clock)

    def drain(self) -> None:
        """Makes `run` end once what runs has ended and is reported."""
        self._intake.slots.close()
        self._draining.set()

    def hand_back(self) -> None:
        """Makes `run` end at once: kills what runs and reports it lost, so that it goes elsewhere without delay."""
        self.drain()
        self._attempts.hand_back()

    async def run(self) -> None:
        """Lives until drained; raises AgentMustStop if the control plane ends it."""
        for file in self._logs.left_behind():
            self._log_stream.finish(file)
        self._pulse.start(self._heartbeat)
        try:
            await self._run_loops()
        finally:
            self._heartbeat.stopped = True
            await self._pulse.stop()
            await self._plugins.close()

    async def _run_loops(self) -> None:
        try:
            async with asyncio.TaskGroup() as loops:
                self._attempts.run_in(loops)
                pull = loops.create_task(self._pull.run())
                rest = [loops.create_task(part.run()) for part in (self._report, self._log_stream, self._disk)]
                rest.append(loops.create_task(self._watch_end()))
                await self._draining.wait()
                pull.cancel()
                await self._finish()
                for task in rest:
                    task.cancel()
        except BaseExceptionGroup as group:
            ends = group.subgroup(AgentMustStop)
            if ends is None:
                raise
            raise _first(ends) from None

    async def _watch_end(self) -> None:
        await self._ended.wait()
        if self._end is not None:
            raise self._end

    async def _finish(self) -> None:
        log.info("draining", running=self._intake.slots.occupied, seconds=self._options.drain_seconds)
        if not await self._within(self._options.drain_seconds, lambda: not self._intake.slots.occupied):
            self._attempts.shut_down()
            if not await self._within(FAREWELL_SECONDS * 2, lambda: not self._intake.slots.occupied):
                self._attempts.abandon()
        await self._within(self._options.drain_seconds, lambda: not self._artifacts)
        await self._within(FAREWELL_SECONDS, lambda: self._outbox.settled)
        await self._within(FAREWELL_SECONDS, lambda: not self._log_stream)

    async def _within(self, seconds: float, holds: Callable[[], bool]) -> bool:
        until = self._clock.monotonic() + seconds
        while not holds():
            left = until - self._clock.monotonic()
            if left <= 0:
                return False
            await self._progress.wait(left)
        return True

    def _sync_now(self) -> None:
        self._pulse.wake()

    def _introduce(self) -> None:
        self._heartbeat.introduce()
        self._pulse.wake()

    def _hear(self, notice: Notice) -> None:
        match notice:
            case Renewed():
                self._renewed(notice)
            case Fenced():
                self._session.shut()
                self._attempts.fence()
            case Ended():
                self._end = notice.error
                self._ended.set()

    def _renewed(self, notice: Renewed) -> None:
        self._holdings.confirmed(notice.confirmed)
        drained = False
        for directive in notice.directives:
            if directive.action == Directive.DRAIN:
                drained = True
            else:
                self._attempts.direct(directive)
        self._drained(drained=drained)
        self._session.renewed()
        self.on_ready()
        self.on_ready = lambda: None

    def _drained(self, *, drained: bool) -> None:
        """Follows the control plane: each of its answers says whether the agent is drained."""
        if drained is not self._is_drained:
            self._is_drained = drained
            log.info("drained_by_admin" if drained else "undrained_by_admin", running=self._intake.slots.occupied)
            self._intake.slots.pause("drained", paused=drained)

    def _disk_changed(self, reason: str) -> None:
        self._intake.slots.pause("disk", paused=bool(reason))
        info = AgentInfo()
        info.CopyFrom(self._options.info)
        info.unschedulable = reason
        self._heartbeat.describe(info)
        self._pulse.wake()


def _first(group: BaseExceptionGroup[AgentMustStop]) -> AgentMustStop:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
