"""The connection to the control plane: one channel for everything, and the question whether it serves."""

from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from towline_sdk import failover

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""What the control plane takes and sends at most: an output grows up to fivefold on the wire."""
_HEALTH_SECONDS: Final = 2

OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    *failover.KEEPALIVE,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
)


def connect(server: str) -> grpc.aio.Channel:
    """Opens the channel to one server or a list of them; it connects on first use and reconnects by itself."""
    return failover.open_channel(server, OPTIONS)


class Readiness:
    """Asks the control plane for its health."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = health_pb2_grpc.HealthStub(channel)

    async def obstacle(self) -> str:
        """Why requests cannot be served now, in plain words; empty when they can."""
        try:
            answer = await self._stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError as error:
            return f"The control plane does not answer: {error.code().name}."
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else f"The control plane is {status}."
