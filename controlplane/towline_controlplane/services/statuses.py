"""Errors as `google.rpc.Status`: exactly one ErrorInfo, each wrong field of a wrong request, and when to repeat it."""

from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from towline_controlplane.errors import InvalidArgument, TowlineError
from towline_controlplane.services.callers import Context

DOMAIN: Final = "towline.dev"
DETAILS_KEY: Final = "grpc-status-details-bin"
REQUEST_ID_KEY: Final = "x-request-id"
MAX_MESSAGE_LENGTH: Final = 2_000


async def abort(context: Context, error: TowlineError, request_id: str) -> None:
    """Ends the call with the error; never returns."""
    message = error.message[:MAX_MESSAGE_LENGTH]
    details = [_packed(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"requestId": request_id}))]
    if isinstance(error, InvalidArgument):
        fields = [BadRequest.FieldViolation(field=each.field, description=each.message) for each in error.violations]
        details.append(_packed(BadRequest(field_violations=fields)))
    if error.retry_seconds is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMicroseconds(int(error.retry_seconds * 1_000_000))
        details.append(_packed(retry))
    status = Status(code=Code.Value(error.status), message=message, details=details)
    trailers = ((REQUEST_ID_KEY, request_id), (DETAILS_KEY, status.SerializeToString()))
    await context.abort(StatusCode[error.status], message, trailers)


def _packed(message: ErrorInfo | BadRequest | RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
