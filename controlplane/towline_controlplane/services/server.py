"""The gRPC server: our services, health and reflection behind one interceptor, started on a port, stopped gently.

Refuses to be built while a method does not say who may call it, or a servicer lacks a method of its service.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from towline_controlplane.bus import Doorbell
from towline_controlplane.call_limits import CallLimits
from towline_controlplane.services.access import AccessRules
from towline_controlplane.services.addresses import Addresses, Network
from towline_controlplane.services.call_records import AuditSink, CallRecorder
from towline_controlplane.services.connections import channel_options
from towline_controlplane.services.described_contract import DescribedContract
from towline_controlplane.services.gate import Gate, Identity
from towline_controlplane.services.health import HEALTH_NAME, Health
from towline_controlplane.services.interceptors import CallInterceptor
from towline_controlplane.services.open_streams import OpenStreams
from towline_controlplane.services.wardens import Wardens

_REFLECTION: Final = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the contract and what implements it: `add` is the generated `add_…Servicer_to_server`."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, aio.Server], None]
    servicer: object


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where to listen (port 0: any free one) and how much at once."""

    host: str = "127.0.0.1"
    port: int = 50051
    max_concurrent_calls: int = 10_000
    max_streams_per_caller: int = 200
    recheck_seconds: float = 30.0
    gateways: Sequence[Network] = ()
    """Whose word is taken for where a call comes from."""
    connection_age_seconds: float = 0.0
    """After which a connection takes no more calls, so that its client chooses a replica anew; 0: never."""
    connection_grace_seconds: float = 60.0
    """How long the calls of such a connection may still take. More than a `Pull` waits."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What the server asks about callers, is told of revoked credentials by, and reports to."""

    identity: Identity
    doorbell: Doorbell
    audit: AuditSink
    limits: CallLimits = field(default_factory=CallLimits)


class ControlPlaneServer:
    """All services on one port."""

    def __init__(self, services: Sequence[Service], guard: Guard, options: ServerOptions) -> None:
        descriptors = [service.descriptor for service in services]
        self._options = options
        self._streams = OpenStreams(options.max_streams_per_caller)
        # Reflection is a stream like any other: counted, and ended when the server stops.
        rules = AccessRules.of(descriptors, public=[_REFLECTION])
        gate = Gate(guard.identity, rules, guard.limits)
        interceptor = CallInterceptor(
            gate,
            Wardens(gate, self._streams, guard.doorbell, options.recheck_seconds),
            CallRecorder(guard.audit, descriptors, rules.mutations),
            Addresses(options.gateways),
        )
        self._server = aio.server(
            interceptors=[interceptor],
            options=channel_options(options.connection_age_seconds, options.connection_grace_seconds),
            maximum_concurrent_rpcs=options.max_concurrent_calls,
        )
        for service in services:
            service.add(service.servicer, self._server)
        self._health = Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*(descriptor.full_name for descriptor in descriptors), HEALTH_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server, cast(DescriptorPool, DescribedContract()))
        self._names = ["", *(descriptor.full_name for descriptor in descriptors)]

    async def report_health(self, name: str, serving: bool) -> None:
        """Has the health service answer for something beside the services, which are SERVING all along."""
        self._health.report(name, serving)

    def retire(self) -> None:
        """Tells health NOT_SERVING of everything, and goes on serving: whoever asks it sends no more here."""
        self._health.retire()

    async def start(self) -> int:
        """Serves, and returns the port."""
        host = self._options.host
        port = self._server.add_insecure_port(f"{f'[{host}]' if ':' in host else host}:{self._options.port}")
        await self._server.start()
        for name in self._names:
            self._health.report(name, serving=True)
        return port

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """Tells health NOT_SERVING, ends streams so that their readers go elsewhere, lets calls finish, then stops."""
        self.retire()
        self._streams.drain()
        await self._server.stop(grace_seconds)
