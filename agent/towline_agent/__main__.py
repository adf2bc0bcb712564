"""The agent process: starts the supervisor before gRPC exists, and runs the agent until a signal.

The first SIGTERM or SIGINT drains, the second hands back what runs, the third stops at once. The exit code says why the
process ended; a service manager need not restart it after 76, 77 or 78, and one that wants to hear how the service is,
is told.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from importlib.metadata import version

import psutil
import structlog

from towline.v1.agent_pb2 import AgentInfo
from towline.v1.agent_service_pb2 import EnrollRequest
from towline_agent import command_line, enrollment, memory_room, prctl
from towline_agent.cgroups import Hierarchy
from towline_agent.clock import Backoff, SystemClock
from towline_agent.control_plane import AgentUnsupported, CredentialRefused, SessionReplaced
from towline_agent.credentials import Credentials
from towline_agent.enrollment import Identity, NotEnrolled
from towline_agent.execution import Supervisor
from towline_agent.files import lock_folder, private_folder, reachable_folder, write_private
from towline_agent.notify import ServiceManager, WatchedRenewal
from towline_agent.sandbox.levels import Level
from towline_agent.sandbox.probe import probe
from towline_agent.sandbox.standing import Standing
from towline_agent.sandbox_settings import UsersKeptOut, check_reach, claim_groups, operator_of, policy_of
from towline_agent.settings import Settings
from towline_agent.telemetry import configure_logging

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class ExitCode(IntEnum):
    """Why the process ended."""

    OK = 0
    SESSION_REPLACED = 76
    CREDENTIAL_REFUSED = 77
    CONFIGURATION = 78
    STOPPED_AT_ONCE = 130


OPTIONS = (
    *(command_line.SERVER, command_line.NAME, command_line.SLOTS, command_line.LABELS),
    *(command_line.FOLDER, command_line.TOKEN_FILE),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs an agent process; returns its exit code."""
    parser = command_line.parser("run", "Run an agent on this machine until it is told to stop.", OPTIONS)
    try:
        settings = command_line.settings(command_line.chosen(parser.parse_args(arguments), OPTIONS))
    except command_line.BadSettings as error:
        sys.stderr.write(f"{error}\n")
        return ExitCode.CONFIGURATION
    configure_logging(settings.log_level)
    try:
        return _run(settings)
    except BlockingIOError:
        return _explain(ExitCode.CONFIGURATION, "another agent runs on the state folder")
    except UsersKeptOut as error:
        return _explain(ExitCode.CONFIGURATION, str(error))
    except NotEnrolled as error:
        return _explain(ExitCode.CREDENTIAL_REFUSED, str(error))
    except SessionReplaced as error:
        return _explain(ExitCode.SESSION_REPLACED, f"another process has this agent's place: {error}")
    except AgentUnsupported as error:
        return _explain(ExitCode.CONFIGURATION, f"this version cannot work with the control plane: {error}")
    except CredentialRefused as error:
        return _explain(ExitCode.CREDENTIAL_REFUSED, f"the credential was refused: {error}")


def _explain(code: ExitCode, reason: str) -> ExitCode:
    log.error("agent_ended", reason=reason, exit_code=int(code))
    return code


def _run(settings: Settings) -> ExitCode:
    # The supervisor forks, gRPC must never see a fork: it starts before gRPC is imported.
    from towline_agent.supervisor_client import ProcessSupervisor

    groups = claim_groups(settings)
    for controller, reason in groups.missing.items():
        log.info("limit_not_by_kernel", controller=controller, reason=reason)
    try:
        supervisor = ProcessSupervisor.start(policy=policy_of(settings), groups=groups if groups.folders else None)
        os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
        if sys.platform == "linux":
            prctl.refuse_inspection()
        lock_folder(private_folder(settings.state_dir))
        return asyncio.run(_serve(settings, supervisor, groups))
    finally:
        groups.dissolve()


class _Signals:
    """What SIGTERM and SIGINT do: the first what `first` says, the second `second`, the third ends the task."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        self.count = 0
        self.end_task: Callable[[], object] = task.cancel if task is not None else sys.exit
        self.first: Callable[[], object] = self.end_task
        self.second: Callable[[], object] = self.end_task
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._received)

    def _received(self) -> None:
        self.count += 1
        {1: self.first, 2: self.second}.get(self.count, self.end_task)()


async def _serve(settings: Settings, supervisor: Supervisor, groups: Hierarchy) -> ExitCode:
    signals = _Signals()
    service_manager = ServiceManager()
    service_manager.waiting(f"waits for {settings.server}")
    try:
        standing = await _standing(settings, supervisor, groups)  # starts processes: done before gRPC is there
        await _live(settings, await _identity(settings), supervisor, signals, service_manager, standing)
    except asyncio.CancelledError:
        return ExitCode.OK if signals.count == 1 else ExitCode.STOPPED_AT_ONCE
    finally:
        await supervisor.close()
    return ExitCode.OK if signals.count <= 1 else ExitCode.STOPPED_AT_ONCE


async def _live(
    settings: Settings,
    identity: Identity,
    supervisor: Supervisor,
    signals: _Signals,
    service_manager: ServiceManager,
    standing: Standing,
) -> None:
    from towline_agent.agent import Agent, Options
    from towline_agent.grpc_control_plane import GrpcControlPlane, GrpcLeaseRenewal
    from towline_agent.pulse import ThreadPulse
    from towline_agent.workshop import Surroundings

    credentials = Credentials(identity, partial(enrollment.save, settings.state_dir.absolute() / enrollment.FILE_NAME))
    control_plane = GrpcControlPlane(settings.server, credentials)
    renewal = GrpcLeaseRenewal(settings.server, credentials)
    around = memory_room.surroundings()
    alive = partial(asyncio.get_running_loop().call_soon_threadsafe, service_manager.alive)
    agent = Agent(
        control_plane,
        ThreadPulse(WatchedRenewal(renewal, alive)),
        supervisor,
        Options(
            info=_introduction(settings, standing),
            state_dir=settings.state_dir.absolute(),
            surroundings=Surroundings(
                settings.http_allow, os.environ.get("PATH", os.defpath), standing, operator_of(settings).users
            ),
            drain_seconds=settings.drain_seconds,
            disk_floor_bytes=settings.disk_floor_mb << 20,
            plugin_cache_bytes=settings.plugin_cache_mb << 20,
            artifact_spool_bytes=settings.artifact_spool_mb << 20,
            artifact_cache_bytes=settings.artifact_cache_mb << 20,
        ),
        partial(memory_room.measure_free, around),
        SystemClock(),
    )
    agent.on_ready = lambda: _ready(settings, identity, service_manager)
    signals.first = lambda: _drain(agent.drain, service_manager)
    signals.second = agent.hand_back
    log.info("agent_starting", agent=identity.agent_id, name=settings.name, server=settings.server)
    try:
        await agent.run()
    finally:
        await control_plane.close()


def _introduction(settings: Settings, standing: Standing) -> AgentInfo:
    from towline_agent.agent import describe

    memory = psutil.virtual_memory().total
    info = describe(settings.slots, settings.labels, version("towline"), settings.plugins, standing, memory)
    info.hostname = settings.host or info.hostname
    return info


async def _standing(settings: Settings, supervisor: Supervisor, groups: Hierarchy) -> Standing:
    operator = operator_of(settings)
    folder = settings.state_dir.absolute() / "canaries"
    if operator.users:
        reachable_folder(settings.state_dir)
    standing = await probe(supervisor, reachable_folder(folder), operator, groups)
    memory = standing.memory_enforcement
    log.info("sandbox_probed", sandbox=standing.level.name, features=len(standing.features), memory=memory)
    check_reach(operator, standing, settings.state_dir)
    if standing.level is Level.L0 and settings.sandbox != Level.L0.name:
        log.warning("plugins_unconfined", missing=dict(standing.missing))
    return standing


def _drain(drain: Callable[[], None], service_manager: ServiceManager) -> None:
    service_manager.stopping()
    drain()


def _ready(settings: Settings, identity: Identity, service_manager: ServiceManager) -> None:
    log.info("agent_ready", agent=identity.agent_id)
    service_manager.ready()
    if settings.ready_file is not None:
        write_private(settings.ready_file, json.dumps({"agentId": identity.agent_id}).encode())


async def _identity(settings: Settings) -> Identity:
    from towline_agent.grpc_control_plane import GrpcControlPlane

    file = settings.state_dir / enrollment.FILE_NAME
    known = enrollment.load(file)
    if known is not None:
        return known
    request = EnrollRequest(token=_token(settings), name=settings.name)
    control_plane = GrpcControlPlane(settings.server)
    try:
        identity = await enrollment.enroll(control_plane.enroll, request, Backoff(SystemClock().jitter), asyncio.sleep)
    finally:
        await control_plane.close()
    enrollment.save(file, identity)
    log.info("agent_enrolled", agent=identity.agent_id, name=settings.name)
    return identity


def _token(settings: Settings) -> str:
    try:
        token = settings.read_enrollment_token()
    except OSError as error:
        raise NotEnrolled(f"the enrollment token cannot be read: {error}") from error
    if not token:
        raise NotEnrolled("set TOWLINE_ENROLLMENT_TOKEN or TOWLINE_ENROLLMENT_TOKEN_FILE for the first start")
    return token


if __name__ == "__main__":
    sys.exit(main())
