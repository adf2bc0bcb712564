"""The services of the control plane that the tests of this folder run against."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

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
from towline_controlplane.auth import Accounts
from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.bus import InProcessDoorbell
from towline_controlplane.keyring import Keyring
from towline_controlplane.loops.lease_expiry import LeaseExpiry
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.services.access import scope_nouns
from towline_controlplane.services.agent_admin import AgentAdminService
from towline_controlplane.services.audit import AuditService
from towline_controlplane.services.authentication import AuthService
from towline_controlplane.services.open_streams import OpenStreams
from towline_controlplane.services.outlines import Outlines
from towline_controlplane.services.plugins import PluginService
from towline_controlplane.services.runs import RunService
from towline_controlplane.services.schedule_starts import ScheduleStarts
from towline_controlplane.services.schedules import ScheduleService
from towline_controlplane.services.secrets import SecretService
from towline_controlplane.services.server import Service
from towline_controlplane.services.users import UserService
from towline_controlplane.services.workflows import WorkflowService
from towline_controlplane.sign_ins import SignIns
from towline_controlplane.store.database import Database

SERVICES: Final[Sequence[ServiceDescriptor]] = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (auth_service_pb2, "AuthService"),
        (workflow_service_pb2, "WorkflowService"),
        (run_service_pb2, "RunService"),
        (plugin_service_pb2, "PluginService"),
        (agent_admin_service_pb2, "AgentAdminService"),
        (secret_service_pb2, "SecretService"),
        (schedule_service_pb2, "ScheduleService"),
        (user_service_pb2, "UserService"),
        (audit_service_pb2, "AuditService"),
        (agent_service_pb2, "AgentService"),
    )
]


class DeafAgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """Stands in for the agent protocol, which is not tested here: the interceptor before it is."""


def rig_services(
    folder: Path,
    database: Database,
    doorbell: InProcessDoorbell,
    orchestrator: Orchestrator,
    runs: RunService,
    blobs: FolderBlobs,
    accounts: Accounts,
    sign_ins: SignIns,
    keys: Keyring | None,
) -> list[Service]:
    spool = folder / "spool"
    spool.mkdir()
    api_keys = ApiKeys(database, doorbell, scope_nouns(SERVICES))
    servicers: list[tuple[Callable[..., None], object]] = [
        (auth_service_pb2_grpc.add_AuthServiceServicer_to_server, AuthService(accounts, sign_ins, api_keys)),
        (
            workflow_service_pb2_grpc.add_WorkflowServiceServicer_to_server,
            WorkflowService(database),
        ),
        (run_service_pb2_grpc.add_RunServiceServicer_to_server, runs),
        (
            plugin_service_pb2_grpc.add_PluginServiceServicer_to_server,
            PluginService(database, blobs, spool, OpenStreams(4)),
        ),
        (
            agent_admin_service_pb2_grpc.add_AgentAdminServiceServicer_to_server,
            AgentAdminService(database, doorbell, LeaseExpiry(database, orchestrator, 30.0)),
        ),
        (secret_service_pb2_grpc.add_SecretServiceServicer_to_server, SecretService(database, keys)),
        (
            schedule_service_pb2_grpc.add_ScheduleServiceServicer_to_server,
            ScheduleService(database, orchestrator, ScheduleStarts(database, Outlines())),
        ),
        (user_service_pb2_grpc.add_UserServiceServicer_to_server, UserService(database, doorbell, sign_ins)),
        (audit_service_pb2_grpc.add_AuditServiceServicer_to_server, AuditService(database)),
        (agent_service_pb2_grpc.add_AgentServiceServicer_to_server, DeafAgentService()),
    ]
    return [Service(descriptor, add, servicer) for descriptor, (add, servicer) in zip(SERVICES, servicers, strict=True)]
