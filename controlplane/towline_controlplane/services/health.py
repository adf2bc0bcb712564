"""The standard health service, by name: "" and every service of the contract, and parts that report for themselves.

Once retired everything is NOT_SERVING for good; who watches is told so and the watch ends, so that it delays no stop.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from grpc import StatusCode
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from towline_controlplane.services.callers import Context

HEALTH_NAME: Final = pb.DESCRIPTOR.services_by_name["Health"].full_name


class Health(health_pb2_grpc.HealthServicer):
    """Answers for names that have been reported; asked for others `Check` fails and `Watch` waits for them."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {}
        self._retired = False
        self._changed = asyncio.Event()

    def report(self, name: str, serving: bool) -> None:
        """Has it answer so for the name; after `retire` nothing changes any more."""
        if not self._retired:
            self._serving[name] = serving
            self._ring()

    def retire(self) -> None:
        """Makes every name NOT_SERVING and ends what watches."""
        self._serving = dict.fromkeys(self._serving, False)
        self._retired = True
        self._ring()

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        """Answers for a name."""
        if request.service not in self._serving:
            await context.abort(StatusCode.NOT_FOUND, "nothing is known of this service")
        return pb.HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> AsyncIterator[pb.HealthCheckResponse]:
        """Answers now, and again whenever it changes."""
        told = None
        while True:
            changed, status, last = self._changed, self._status(request.service), self._retired
            if status != told:
                yield pb.HealthCheckResponse(status=status)
                told = status
            if last:
                return
            await changed.wait()

    def _status(self, name: str) -> pb.HealthCheckResponse.ServingStatus:
        kinds = pb.HealthCheckResponse
        known = {True: kinds.SERVING, False: kinds.NOT_SERVING, None: kinds.SERVICE_UNKNOWN}
        return known[self._serving.get(name)]

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
