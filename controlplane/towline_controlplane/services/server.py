"""The gRPC server: our services, health and reflection behind one interceptor, started on a port, stopped gently.

Refuses to be built while a method does not say who may call it, or a servicer lacks a method of its service.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from towline_controlplane.services.access import check_access_options, mutations
from towline_controlplane.services.described_contract import DescribedContract
from towline_controlplane.services.interceptors import CallInterceptor, Identity
from towline_controlplane.services.open_streams import OpenStreams

MAX_REQUEST_BYTES: Final = 16 << 20
# Free JSON grows up to fivefold on the wire; clients set their receive limit to this.
MAX_ANSWER_BYTES: Final = 32 << 20
KEEPALIVE_MS: Final = 30_000


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


class ControlPlaneServer:
    """All services on one port."""

    def __init__(self, services: Sequence[Service], identity: Identity, options: ServerOptions) -> None:
        descriptors = [service.descriptor for service in services]
        self._options = options
        self._streams = OpenStreams(options.max_streams_per_caller)
        interceptor = CallInterceptor(
            identity,
            check_access_options(descriptors),
            mutations(descriptors),
            self._streams,
            options.recheck_seconds,
        )
        self._server = aio.server(
            interceptors=[interceptor],
            options=_channel_options(),
            maximum_concurrent_rpcs=options.max_concurrent_calls,
        )
        for service in services:
            service.add(service.servicer, self._server)
        self._health: Any = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*(descriptor.full_name for descriptor in descriptors), health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server, cast(DescriptorPool, DescribedContract()))
        self._names = ["", *(descriptor.full_name for descriptor in descriptors)]

    async def report_health(self, name: str, serving: bool) -> None:
        """Has the health service answer for something beside the services, which are SERVING all along."""
        status = health_pb2.HealthCheckResponse
        await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def start(self) -> int:
        """Serves, and returns the port."""
        host = self._options.host
        port = self._server.add_insecure_port(f"{f'[{host}]' if ':' in host else host}:{self._options.port}")
        await self._server.start()
        for name in self._names:
            await self.report_health(name, serving=True)
        return port

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """Tells health NOT_SERVING, ends streams so that their readers go elsewhere, lets calls finish, then stops."""
        await self._health.enter_graceful_shutdown()
        self._streams.drain()
        await self._server.stop(grace_seconds)


def _channel_options() -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 2),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        # A second process on the same port must fail, not share it.
        ("grpc.so_reuseport", 0),
    ]
