"""The fake control plane of `towline_agent.testing`, served over real gRPC."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from towline.v1.agent_service_pb2 import (
    AppendLogsRequest,
    AppendLogsResponse,
    EnrollRequest,
    EnrollResponse,
    FetchPluginRequest,
    FetchPluginResponse,
    PullRequest,
    PullResponse,
    ReportRequest,
    ReportResponse,
    SyncRequest,
    SyncResponse,
)
from towline_agent.control_plane import (
    AgentUnsupported,
    ControlPlaneError,
    CredentialRefused,
    RequestRefused,
    SessionReplaced,
    SessionUnknown,
    Unavailable,
)
from towline_agent.testing import FakeControlPlane

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

STATUSES: dict[type[ControlPlaneError], tuple[grpc.StatusCode, str]] = {
    Unavailable: (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    SessionUnknown: (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_UNKNOWN"),
    SessionReplaced: (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_REPLACED"),
    AgentUnsupported: (grpc.StatusCode.FAILED_PRECONDITION, "AGENT_UNSUPPORTED"),
    CredentialRefused: (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    RequestRefused: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
}


class FakeAgentService:
    """Answers as the generated servicer would; the names of its methods are those of the contract in small letters."""

    def __init__(self, fake: FakeControlPlane) -> None:
        self.fake = fake
        self.authorizations: set[str] = set()

    async def enroll(self, request: EnrollRequest, context: Context) -> EnrollResponse:
        return await self._answer(self.fake.enroll(request), context)

    async def pull(self, request: PullRequest, context: Context) -> PullResponse:
        return await self._answer(self.fake.pull(request), context)

    async def report(self, request: ReportRequest, context: Context) -> ReportResponse:
        return await self._answer(self.fake.report(request), context)

    async def sync(self, request: SyncRequest, context: Context) -> SyncResponse:
        return await self._answer(asyncio.to_thread(self.fake.sync, request, 0.0), context)

    async def append_logs(
        self, requests: AsyncIterator[AppendLogsRequest], context: Context
    ) -> AsyncIterator[AppendLogsResponse]:
        try:
            async for response in self.fake.append_logs(requests):
                yield response
        except ControlPlaneError as error:
            await abort(context, error)

    async def fetch_plugin(self, request: FetchPluginRequest, context: Context) -> AsyncIterator[FetchPluginResponse]:
        try:
            async for chunk in self.fake.fetch_plugin(request.digest, request.offset):
                yield FetchPluginResponse(chunk=chunk)
        except ControlPlaneError as error:
            await abort(context, error)

    async def _answer(self, answer: Awaitable[T], context: Context) -> T:
        metadata = cast("Iterable[tuple[str, str]]", context.invocation_metadata() or ())
        self.authorizations |= {value for key, value in metadata if key == "authorization"}
        try:
            return await answer
        except ControlPlaneError as error:
            await abort(context, error)


async def abort(context: Context, error: ControlPlaneError) -> NoReturn:
    code, reason = STATUSES[type(error)]
    detail = AnyMessage()
    detail.Pack(ErrorInfo(reason=reason, domain="towline.dev"))
    status = Status(code=code.value[0], message=str(error), details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, str(error))


def handlers(service: FakeAgentService) -> grpc.GenericRpcHandler:
    unary, streams, answers = (
        grpc.unary_unary_rpc_method_handler,
        grpc.stream_stream_rpc_method_handler,
        grpc.unary_stream_rpc_method_handler,
    )
    methods: dict[str, Any] = {
        "Enroll": unary(service.enroll, EnrollRequest.FromString, EnrollResponse.SerializeToString),
        "Pull": unary(service.pull, PullRequest.FromString, PullResponse.SerializeToString),
        "Report": unary(service.report, ReportRequest.FromString, ReportResponse.SerializeToString),
        "Sync": unary(service.sync, SyncRequest.FromString, SyncResponse.SerializeToString),
        "AppendLogs": streams(service.append_logs, AppendLogsRequest.FromString, AppendLogsResponse.SerializeToString),
        "FetchPlugin": answers(
            service.fetch_plugin, FetchPluginRequest.FromString, FetchPluginResponse.SerializeToString
        ),
    }
    return grpc.method_handlers_generic_handler("towline.v1.AgentService", methods)


@asynccontextmanager
async def serve(fake: FakeControlPlane) -> AsyncGenerator[tuple[str, FakeAgentService], None]:
    server = grpc.aio.server()
    service = FakeAgentService(fake)
    server.add_generic_rpc_handlers((handlers(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        await server.stop(grace=0)
