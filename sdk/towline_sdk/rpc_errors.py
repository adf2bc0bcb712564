"""Turns what gRPC raises into the tree of `errors`, with reason and field violations from `google.rpc.Status`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode, aio

from towline_sdk import errors

ERROR_BY_CODE: Final[Mapping[StatusCode, type[errors.TowlineError]]] = MappingProxyType(
    {
        StatusCode.INVALID_ARGUMENT: errors.InvalidArgumentError,
        StatusCode.OUT_OF_RANGE: errors.InvalidArgumentError,
        StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
        StatusCode.PERMISSION_DENIED: errors.PermissionDeniedError,
        StatusCode.NOT_FOUND: errors.NotFoundError,
        StatusCode.ALREADY_EXISTS: errors.ConflictError,
        StatusCode.FAILED_PRECONDITION: errors.ConflictError,
        StatusCode.ABORTED: errors.ConflictError,
        StatusCode.RESOURCE_EXHAUSTED: errors.LimitExceededError,
        StatusCode.UNAVAILABLE: errors.UnavailableError,
        StatusCode.DEADLINE_EXCEEDED: errors.UnavailableError,
    }
)
# Said where the server itself could not: the call never reached it, or its answer never came.
SILENCE: Final[Mapping[StatusCode, str]] = MappingProxyType(
    {
        StatusCode.UNAVAILABLE: "cannot reach Towline at {address}",
        StatusCode.DEADLINE_EXCEEDED: "Towline at {address} did not answer in time",
    }
)


def from_rpc(error: aio.AioRpcError, address: str, request_id: str) -> errors.TowlineError:
    """Returns the error of this package that says the same."""
    info, violations, retry_seconds = _details(error)
    message = error.details() or error.code().name
    if not info.reason:
        message = SILENCE.get(error.code(), message).format(address=address)
    return ERROR_BY_CODE.get(error.code(), errors.ServerError)(
        message,
        reason=info.reason or error.code().name,
        violations=violations,
        request_id=request_id,
        retry_seconds=retry_seconds,
    )


def _details(
    error: aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo, tuple[errors.Violation, ...], float | None]:
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in _status(error).details:
        detail.Unpack(info)
        detail.Unpack(bad_request)
        detail.Unpack(retry)
    violations = tuple(errors.Violation(each.field, each.description) for each in bad_request.field_violations)
    return info, violations, retry.retry_delay.ToMicroseconds() / 1e6 if retry.HasField("retry_delay") else None


def _status(error: aio.AioRpcError) -> status_pb2.Status:
    metadata = error.trailing_metadata() or ()
    packed = next((value for key, value in metadata if key == "grpc-status-details-bin"), b"")
    return status_pb2.Status.FromString(packed if isinstance(packed, bytes) else packed.encode())
