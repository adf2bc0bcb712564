"""The control plane over gRPC. Imported only after the supervisor has started: gRPC and fork do not mix.

Turns every status into the error that says what to do; the reason in the error details decides before the code does.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from types import MappingProxyType
from typing import cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from towline.v1.agent_service_pb2 import (
    AppendLogsRequest,
    AppendLogsResponse,
    EnrollRequest,
    EnrollResponse,
    FetchPluginRequest,
    FetchPluginResponse,
    GetArtifactRequest,
    GetArtifactResponse,
    InputArtifact,
    Lease,
    PullRequest,
    PullResponse,
    PutArtifactRequest,
    PutArtifactResponse,
    ReportRequest,
    ReportResponse,
    ResultArtifact,
    SyncRequest,
    SyncResponse,
)
from towline_agent.control_plane import (
    AgentUnsupported,
    ControlPlaneError,
    CredentialRefused,
    IdentityInUse,
    LeaseLost,
    RequestRefused,
    SessionReplaced,
    SessionUnknown,
    Unavailable,
)
from towline_agent.credentials import Credentials
from towline_sdk import failover
from towline_sdk.servers import addresses

CALL_SECONDS = 10.0
PULL_GRACE_SECONDS = 5.0
PUT_SECONDS = 600.0
"""Of one call; what it has sent by then stays, and the next one goes on there."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
OPTIONS = (
    *failover.KEEPALIVE,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Leases are renewed over a connection that shares nothing with the data.
    ("grpc.use_local_subchannel_pool", 1),
)

_SERVICE = "/towline.v1.AgentService/"
_IN_USE = "IDENTITY_IN_USE"
_BY_REASON: MappingProxyType[str, type[ControlPlaneError]] = MappingProxyType(
    {
        "SESSION_UNKNOWN": SessionUnknown,
        "SESSION_REPLACED": SessionReplaced,
        "AGENT_UNSUPPORTED": AgentUnsupported,
        "LEASE_LOST": LeaseLost,
    }
)
_BY_CODE: MappingProxyType[grpc.StatusCode, type[ControlPlaneError]] = MappingProxyType(
    {
        grpc.StatusCode.UNAUTHENTICATED: CredentialRefused,
        grpc.StatusCode.PERMISSION_DENIED: CredentialRefused,
        grpc.StatusCode.INVALID_ARGUMENT: RequestRefused,
        grpc.StatusCode.OUT_OF_RANGE: RequestRefused,
        grpc.StatusCode.NOT_FOUND: RequestRefused,
        grpc.StatusCode.ALREADY_EXISTS: RequestRefused,
        grpc.StatusCode.UNIMPLEMENTED: RequestRefused,
        # A message that is too large for the receiver.
        grpc.StatusCode.RESOURCE_EXHAUSTED: RequestRefused,
    }
)


class GrpcControlPlane:
    """The calls of the event loop, to one replica at a time; made within the loop."""

    def __init__(self, servers: str, credentials: Credentials | None = None) -> None:
        self._channel = failover.open_channel(servers, OPTIONS)
        self._credentials = credentials
        self._enroll = self._channel.unary_unary(
            f"{_SERVICE}Enroll", EnrollRequest.SerializeToString, EnrollResponse.FromString
        )
        self._pull = self._channel.unary_unary(
            f"{_SERVICE}Pull", PullRequest.SerializeToString, PullResponse.FromString
        )
        self._report = self._channel.unary_unary(
            f"{_SERVICE}Report", ReportRequest.SerializeToString, ReportResponse.FromString
        )
        self._append_logs = self._channel.stream_stream(
            f"{_SERVICE}AppendLogs", AppendLogsRequest.SerializeToString, AppendLogsResponse.FromString
        )
        self._fetch_plugin = self._channel.unary_stream(
            f"{_SERVICE}FetchPlugin", FetchPluginRequest.SerializeToString, FetchPluginResponse.FromString
        )
        self._put_artifact = self._channel.stream_unary(
            f"{_SERVICE}PutArtifact", PutArtifactRequest.SerializeToString, PutArtifactResponse.FromString
        )
        self._get_artifact = self._channel.unary_stream(
            f"{_SERVICE}GetArtifact", GetArtifactRequest.SerializeToString, GetArtifactResponse.FromString
        )

    async def enroll(self, request: EnrollRequest) -> EnrollResponse:
        """Trades an enrollment token for an identity."""
        try:
            return await self._enroll(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error

    async def pull(self, request: PullRequest) -> PullResponse:
        """Waits for work, at most as long as the request says and the network may need."""
        wait, used = request.wait.ToTimedelta().total_seconds(), self._credential
        try:
            return await self._pull(request, timeout=wait + PULL_GRACE_SECONDS, metadata=_metadata(used))
        except grpc.aio.AioRpcError as error:
            raise self._refused(error, used) from error

    async def report(self, request: ReportRequest) -> ReportResponse:
        """Ends attempts."""
        used = self._credential
        try:
            return await self._report(request, timeout=CALL_SECONDS, metadata=_metadata(used))
        except grpc.aio.AioRpcError as error:
            raise self._refused(error, used) from error

    async def append_logs(self, requests: AsyncIterator[AppendLogsRequest]) -> AsyncIterator[AppendLogsResponse]:
        """Opens one stream; ends it when the caller goes."""
        used = self._credential
        call = self._append_logs(requests, metadata=_metadata(used))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._refused(error, used) from error
        finally:
            call.cancel()

    async def fetch_plugin(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Streams a bundle."""
        used = self._credential
        call = self._fetch_plugin(FetchPluginRequest(digest=digest, offset=offset), metadata=_metadata(used))
        try:
            async for response in call:
                yield response.chunk
        except grpc.aio.AioRpcError as error:
            raise self._refused(error, used) from error
        finally:
            call.cancel()

    async def put_artifact(
        self, lease: Lease, artifact: ResultArtifact, offset: int, chunks: Iterator[bytes]
    ) -> PutArtifactResponse:
        """Streams a file, as fast as it is taken; stops when the answer is in."""
        used = self._credential
        call = self._put_artifact(timeout=PUT_SECONDS, metadata=_metadata(used))
        try:
            await _write_all(call, PutArtifactRequest(lease=lease, artifact=artifact, offset=offset), chunks)
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._refused(error, used) from error
        finally:
            call.cancel()

    async def get_artifact(self, lease: Lease, artifact: InputArtifact, offset: int) -> AsyncIterator[bytes]:
        """Streams an input of a step."""
        request = GetArtifactRequest(lease=lease, node_id=artifact.node_id, name=artifact.name, offset=offset)
        used = self._credential
        call = self._get_artifact(request, metadata=_metadata(used))
        try:
            async for response in call:
                yield response.chunk
        except grpc.aio.AioRpcError as error:
            raise self._refused(error, used) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the channel and all its calls."""
        await self._channel.close()

    @property
    def _credential(self) -> str | None:
        return None if self._credentials is None else self._credentials.current

    def _refused(self, error: grpc.aio.AioRpcError, used: str | None) -> ControlPlaneError:
        return _unless_outdated(_error(error), self._credentials, used)


class GrpcLeaseRenewal:
    """Sync over channels of its own, for a thread of its own; a replica that does not answer is left for the next."""

    def __init__(self, servers: str, credentials: Credentials) -> None:
        self._channels = [grpc.insecure_channel(address, options=OPTIONS) for address in addresses(servers)]
        self._credentials = credentials
        self._methods = itertools.cycle(
            channel.unary_unary(f"{_SERVICE}Sync", SyncRequest.SerializeToString, SyncResponse.FromString)
            for channel in self._channels
        )
        self._sync = next(self._methods)

    def sync(self, request: SyncRequest, timeout_seconds: float) -> SyncResponse:
        """Renews the leases, and the credential when it is asked to; blocks."""
        used = self._credentials.newest
        try:
            response = self._sync(request, timeout=timeout_seconds, metadata=_metadata(used))
        except grpc.RpcError as error:
            failure = _unless_outdated(_error(error), self._credentials, used)
            if isinstance(failure, Unavailable):
                self._sync = next(self._methods)
            raise failure from error
        except ValueError as error:  # the channel was closed meanwhile
            raise Unavailable(str(error)) from error
        self._credentials.accepted(used)
        if response.next_credential:
            self._credentials.replace_by(response.next_credential)
        return response

    def close(self) -> None:
        """Closes the channels; a call under way fails."""
        for channel in self._channels:
            channel.close()


async def _write_all(
    call: "grpc.aio.StreamUnaryCall[PutArtifactRequest, PutArtifactResponse]",
    first: PutArtifactRequest,
    chunks: Iterator[bytes],
) -> None:
    try:
        await call.write(first)
        while not call.done() and (chunk := await asyncio.to_thread(next, chunks, b"")):
            await call.write(PutArtifactRequest(chunk=chunk))
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return  # answered before the end; awaiting the call tells what


def _metadata(credential: str | None) -> tuple[tuple[str, str], ...]:
    return () if credential is None else (("authorization", f"Bearer {credential}"),)


def _unless_outdated(error: ControlPlaneError, credentials: Credentials | None, used: str | None) -> ControlPlaneError:
    """A credential that is being replaced may be refused: the call is worth repeating with the other one."""
    if not isinstance(error, CredentialRefused) or credentials is None or used is None:
        return error
    return error if credentials.refused(used) else Unavailable(str(error))


def refusal(code: grpc.StatusCode, reason: str, message: str, retry_seconds: float = 0.0) -> ControlPlaneError:
    """What a status says to do: its reason decides before its code does."""
    said = f"{code.name}: {message or 'no details'}"
    if reason == _IN_USE:
        return IdentityInUse(said, retry_seconds)
    return _BY_REASON.get(reason, _BY_CODE.get(code, Unavailable))(said)


def _error(error: grpc.RpcError) -> ControlPlaneError:
    info, retry = _details(error)
    return refusal(error.code(), info.reason, error.details() or "", retry.retry_delay.ToTimedelta().total_seconds())


def _details(error: grpc.RpcError) -> tuple[ErrorInfo, RetryInfo]:
    """Returns what the details of a status say; what cannot be read says nothing."""
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    packed = dict(metadata).get("grpc-status-details-bin")
    info, retry = ErrorInfo(), RetryInfo()
    try:
        for detail in Status.FromString(packed).details if isinstance(packed, bytes) else ():
            for message in (info, retry):
                detail.Unpack(message)
    except DecodeError:
        return ErrorInfo(), RetryInfo()
    return info, retry
