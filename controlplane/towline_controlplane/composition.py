"""Puts the control plane together: settings in, objects that know only their neighbours out."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from towline.v1 import (
    agent_admin_service_pb2,
    agent_admin_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    auth_service_pb2,
    auth_service_pb2_grpc,
    plugin_service_pb2,
    plugin_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    schedule_service_pb2,
    schedule_service_pb2_grpc,
    secret_service_pb2,
    secret_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
    workflow_service_pb2,
    workflow_service_pb2_grpc,
)
from towline_controlplane.api_keys import ApiKeys
from towline_controlplane.artifact_uploads import ArtifactUploads
from towline_controlplane.audit_log import AuditLog
from towline_controlplane.auth import Accounts
from towline_controlplane.blobs import Blobs, FolderBlobs
from towline_controlplane.bus import Doorbell, InProcessDoorbell
from towline_controlplane.call_limits import Attempts, CallLimits, CallRates
from towline_controlplane.engine.allowance import Platform
from towline_controlplane.keyring import Keyring
from towline_controlplane.log_archive import LogArchive
from towline_controlplane.log_writer import LogWriter
from towline_controlplane.loops.admission import Admission
from towline_controlplane.loops.blob_health import BlobHealth
from towline_controlplane.loops.deadlines import Deadlines
from towline_controlplane.loops.lease_expiry import LeaseExpiry
from towline_controlplane.loops.log_archiving import LogArchiving
from towline_controlplane.loops.offer_expiry import OfferExpiry
from towline_controlplane.loops.periodic import periodically
from towline_controlplane.loops.retention import Retention
from towline_controlplane.loops.retry_timer import RetryTimer
from towline_controlplane.loops.scheduling import Scheduling
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.outputs import Outputs
from towline_controlplane.passwords import Passwords
from towline_controlplane.rates import LocalMeter, Meter
from towline_controlplane.redis_rates import RedisMeter
from towline_controlplane.redis_wire import RedisWire
from towline_controlplane.relay import Alone, Relay
from towline_controlplane.saving import Saving
from towline_controlplane.services.access import scope_nouns
from towline_controlplane.services.agent_admin import AgentAdminService
from towline_controlplane.services.agent_artifacts import AgentArtifacts
from towline_controlplane.services.agent_messages import AgentLimits
from towline_controlplane.services.agent_protocol import AgentProtocol
from towline_controlplane.services.audit import AuditService
from towline_controlplane.services.authentication import AuthService
from towline_controlplane.services.log_streams import GIVE_UP_SECONDS, LogStreams
from towline_controlplane.services.offers import OfferMessages
from towline_controlplane.services.open_streams import OpenStreams
from towline_controlplane.services.outlines import Outlines
from towline_controlplane.services.plugin_schemas import PluginSchemas
from towline_controlplane.services.plugins import PluginService
from towline_controlplane.services.run_artifacts import RunArtifacts
from towline_controlplane.services.run_streams import RunStreams
from towline_controlplane.services.runs import RunService
from towline_controlplane.services.schedule_starts import ScheduleStarts
from towline_controlplane.services.schedules import ScheduleService
from towline_controlplane.services.secret_handout import SecretHandout
from towline_controlplane.services.secrets import SecretService
from towline_controlplane.services.server import ControlPlaneServer, Guard, ServerOptions, Service
from towline_controlplane.services.users import UserService
from towline_controlplane.services.workflows import WorkflowService
from towline_controlplane.sessions import Sessions
from towline_controlplane.settings import Settings
from towline_controlplane.sign_ins import SignIns
from towline_controlplane.sources import Sources
from towline_controlplane.store.database import Database
from towline_controlplane.store.notifications import PostgresWire
from towline_controlplane.tokens import AccessTokens
from towline_dag.choices import SandboxLevel

DOORBELL_HEALTH = "towline.doorbell"
"""Asked for by this name, the health service tells whether rings of other replicas come in."""

BLOBS_HEALTH = "towline.blobs"
"""By this name it tells whether blobs can be kept."""

_TICK_SECONDS = 1.0
_BLOB_SECONDS = 10.0
_ARCHIVING_SECONDS = 2.0
_RETENTION_SECONDS = 600.0
_PUSHES_PER_USER = 4
_ARTIFACT_STREAMS_PER_AGENT = 16
_PATIENCE_OFFERS = 2
"""So long after a start, in lifetimes of an offer: agents look for a lost control plane every 5 s at least."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The services of a control plane and the duties that run beside them, each until it is cancelled."""

    services: tuple[Service, ...]
    agents: AgentProtocol
    accounts: Accounts
    guard: Guard
    blobs: Blobs
    archiving: LogArchiving
    duties: tuple[Callable[[], Awaitable[None]], ...]


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A server, the parts behind it, and all duties, each until it is cancelled."""

    server: ControlPlaneServer
    parts: Parts
    duties: tuple[Callable[[], Awaitable[None]], ...]


def compose(settings: Settings, database: Database) -> ControlPlane:
    """Returns a control plane over an open database; nothing runs yet."""
    relay = relay_of(settings)
    doorbell = InProcessDoorbell(relay.carry)
    parts = assemble(settings, database, doorbell, Sources())
    options = ServerOptions(
        settings.grpc_host,
        settings.grpc_port,
        gateways=settings.gateways,
        connection_age_seconds=settings.connection_age_seconds,
        connection_grace_seconds=settings.connection_grace_seconds,
    )
    server = ControlPlaneServer(parts.services, parts.guard, options)
    blob_health = BlobHealth(parts.blobs, partial(server.report_health, BLOBS_HEALTH))
    duties = (
        *parts.duties,
        lambda: relay.run(doorbell, partial(server.report_health, DOORBELL_HEALTH)),
        lambda: periodically(blob_health.tick, _BLOB_SECONDS),
        lambda: periodically(parts.archiving.tick, _ARCHIVING_SECONDS),
    )
    return ControlPlane(server, parts, duties)


def blobs_of(settings: Settings) -> Blobs:
    """Returns the store of blobs: one with the S3 protocol if the settings name it, else a folder."""
    if not settings.minio_endpoint:
        return FolderBlobs(settings.data_dir / "blobs")
    # Only who uses it pays for the client.
    from towline_controlplane.s3_blobs import S3Blobs
    from towline_controlplane.s3_bucket import S3Options

    options = S3Options(
        endpoint=settings.minio_endpoint,
        access_key=settings.minio_access_key.get_secret_value(),
        secret_key=settings.minio_secret_key.get_secret_value(),
        bucket=settings.minio_bucket,
        region=settings.minio_region,
    )
    return S3Blobs(options, settings.spool_folder)


def relay_of(settings: Settings) -> Relay | Alone:
    """Returns the way to the other replicas: Redis if there is one, else a database that more than one can share."""
    if redis_url := settings.redis_url.get_secret_value():
        return Relay(RedisWire(redis_url))
    if settings.database.startswith("postgres"):
        return Relay(PostgresWire(settings.database))
    return Alone()


def meter_of(settings: Settings) -> Meter:
    """Returns what counts calls: Redis for all replicas together if there is one, else each for itself."""
    redis_url = settings.redis_url.get_secret_value()
    with suppress(ValueError):  # of an URL that is none; the relay says so
        return RedisMeter(redis_url) if redis_url else LocalMeter()
    return LocalMeter()


def assemble(settings: Settings, database: Database, doorbell: Doorbell, sources: Sources) -> Parts:
    """Returns all of a control plane but its server: whoever serves the services and runs the duties has one."""
    timer = RetryTimer(database, doorbell)
    orchestrator = Orchestrator(
        database,
        doorbell,
        jitter=sources.jitter,
        new_token=sources.new_token,
        new_id=sources.new_id,
        on_retry_scheduled=timer.alarm.wake,
        saving=Saving(monotonic=sources.monotonic),
    )
    admission = Admission(database, orchestrator)
    orchestrator.on_slots_changed = admission.alarm.wake
    outlines = Outlines()
    schedule_starts = ScheduleStarts(database, outlines)
    scheduling = Scheduling(database, orchestrator, schedule_starts)
    orchestrator.on_schedule_free = scheduling.alarm.wake
    deadlines = Deadlines(database, orchestrator)
    log_writer = LogWriter(database, doorbell, orchestrator.confirm)
    lease_expiry = LeaseExpiry(database, orchestrator, settings.lease_seconds, sources.monotonic)
    offer_expiry = OfferExpiry(database, orchestrator, _PATIENCE_OFFERS * settings.offer_seconds, sources.monotonic)
    tokens = AccessTokens(settings.jwt_secret.get_secret_value(), int(settings.token_hours * 3600))
    audit_log, meter = AuditLog(database), meter_of(settings)
    call_limits = CallLimits(CallRates(settings.rate_reads, settings.rate_writes, settings.rate_sign_ins), meter)
    passwords = Passwords(settings.bcrypt_cost)
    accounts = Accounts(database, passwords, tokens, settings.credential_days)
    sign_ins = SignIns(database, doorbell, passwords, tokens, Attempts(meter), settings.sign_in_days)
    blobs = blobs_of(settings)
    outputs = Outputs(database, blobs)
    retention = Retention(
        database, blobs, settings.retention_days, settings.idempotency_hours, sources.monotonic, settings.audit_days
    )
    keys = Keyring.parse(settings.secrets_key.get_secret_value())
    platform = Platform(SandboxLevel[settings.min_sandbox], settings.server_limits)
    limits = AgentLimits(settings.offer_seconds, platform, settings.credential_days)
    orchestrator.queues.platform = platform
    agent_admin = AgentAdminService(database, doorbell, lease_expiry)
    uploads = ArtifactUploads(database, blobs, settings.upload_folder, settings.artifact_limit_mb << 20)
    agents = AgentProtocol(
        database=database,
        orchestrator=orchestrator,
        doorbell=doorbell,
        queues=orchestrator.queues,
        sessions=Sessions(database, settings.lease_seconds),
        lease_expiry=lease_expiry,
        log_writer=log_writer,
        blobs=blobs,
        outputs=outputs,
        offers=OfferMessages(orchestrator, outputs, limits, PluginSchemas(database), SecretHandout(database, keys)),
        artifacts=AgentArtifacts(
            database, blobs, orchestrator.blueprints, uploads, OpenStreams(_ARTIFACT_STREAMS_PER_AGENT)
        ),
    )
    archive = LogArchive(database, blobs, settings.spool_folder)
    services = (
        _service("Agent", agent_service_pb2, agent_service_pb2_grpc, agents),
        _service(
            "AgentAdmin",
            agent_admin_service_pb2,
            agent_admin_service_pb2_grpc,
            agent_admin,
        ),
        _service(
            "Plugin",
            plugin_service_pb2,
            plugin_service_pb2_grpc,
            PluginService(database, blobs, settings.spool_folder, OpenStreams(_PUSHES_PER_USER)),
        ),
        _service(
            "Run",
            run_service_pb2,
            run_service_pb2_grpc,
            RunService(
                database,
                orchestrator,
                RunStreams(database, doorbell),
                outlines,
                outputs,
                LogStreams(database, doorbell, archive),
                RunArtifacts(database, blobs),
                platform,
            ),
        ),
        _service(
            "Schedule",
            schedule_service_pb2,
            schedule_service_pb2_grpc,
            ScheduleService(database, orchestrator, schedule_starts, scheduling.alarm.wake),
        ),
        _service("Secret", secret_service_pb2, secret_service_pb2_grpc, SecretService(database, keys)),
        _service("Workflow", workflow_service_pb2, workflow_service_pb2_grpc, WorkflowService(database)),
    )
    return Parts(
        services=(*services, *_of_people(database, doorbell, accounts, sign_ins, services)),
        agents=agents,
        accounts=accounts,
        guard=Guard(accounts, doorbell, audit_log, call_limits),
        blobs=blobs,
        archiving=LogArchiving(database, archive, GIVE_UP_SECONDS),
        duties=(
            orchestrator.run,
            audit_log.run,
            meter.run,
            log_writer.run,
            timer.run,
            orchestrator.queues.run,
            admission.run,
            scheduling.run,
            lambda: periodically(deadlines.tick, _TICK_SECONDS),
            lambda: periodically(lease_expiry.tick, _TICK_SECONDS),
            lambda: periodically(offer_expiry.tick, _TICK_SECONDS),
            lambda: periodically(retention.tick, _RETENTION_SECONDS),
            lambda: periodically(uploads.tick, _RETENTION_SECONDS),
        ),
    )


def _of_people(
    database: Database, doorbell: Doorbell, accounts: Accounts, sign_ins: SignIns, others: Sequence[Service]
) -> tuple[Service, ...]:
    """Returns the services of identity; API keys may reach for what the others offer."""
    api_keys = ApiKeys(database, doorbell, scope_nouns(service.descriptor for service in others))
    return (
        _service("Auth", auth_service_pb2, auth_service_pb2_grpc, AuthService(accounts, sign_ins, api_keys)),
        _service("Audit", audit_service_pb2, audit_service_pb2_grpc, AuditService(database)),
        _service("User", user_service_pb2, user_service_pb2_grpc, UserService(database, doorbell, sign_ins)),
    )


def _service(name: str, messages: ModuleType, stubs: ModuleType, servicer: object) -> Service:
    descriptor = messages.DESCRIPTOR.services_by_name[f"{name}Service"]
    return Service(descriptor, getattr(stubs, f"add_{name}ServiceServicer_to_server"), servicer)
