"""Errors as REST shows them: one JSON body for all, derived from `google.rpc.Status`.

Refuses to show what only the operators should know: transport errors and defects get a fixed text, and the request
id that finds them in the logs. Never a stack trace.
"""

import math
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from starlette.responses import Response

from towline_gateway.codec import InvalidFieldsError, Json, MalformedJsonError, Violation, render

HTTP_CODES: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
CODES_OF_REASONS: dict[str, int] = {"ETAG_MISMATCH": 412}
"""What a reason says more exactly than its gRPC code."""

# An answer without ErrorInfo did not come from the control plane's own code, but from gRPC or a proxy between.
_REASONS: dict[grpc.StatusCode, str] = {
    grpc.StatusCode.CANCELLED: "CANCELLED",
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_ARGUMENT",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    grpc.StatusCode.NOT_FOUND: "NOT_FOUND",
    grpc.StatusCode.ALREADY_EXISTS: "ALREADY_EXISTS",
    grpc.StatusCode.PERMISSION_DENIED: "PERMISSION_DENIED",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "LIMIT_EXCEEDED",
    grpc.StatusCode.FAILED_PRECONDITION: "INVALID_STATE",
    grpc.StatusCode.OUT_OF_RANGE: "INVALID_ARGUMENT",
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
}
_TRANSPORT_MESSAGES: dict[grpc.StatusCode, str] = {
    grpc.StatusCode.CANCELLED: "The call was cancelled.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "The control plane did not answer in time.",
    grpc.StatusCode.UNAVAILABLE: "The control plane cannot be reached; repeat the request.",
    grpc.StatusCode.UNIMPLEMENTED: "The control plane does not offer this method.",
}
_DEFECT = "The server failed; its log has the details under the request id."
_DEFECTS = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS})

Headers = tuple[tuple[str, str], ...]


@dataclass(slots=True, eq=False)  # not frozen: the interpreter hangs tracebacks on what is raised
class Problem(Exception):
    """An answer that is an error; `code` is the HTTP status, `status` the gRPC code, `reason` an `ErrorReason`."""

    code: int
    status: str
    reason: str
    message: str
    details: tuple[Violation, ...] = ()
    headers: Headers = ()

    def body(self, request_id: str) -> Json:
        """The body that every error of the API has."""
        return {
            "error": {
                "code": self.code,
                "status": self.status,
                "reason": self.reason,
                "message": self.message,
                "details": [{"field": each.field, "message": each.message} for each in self.details],
                "requestId": request_id,
            }
        }

    def response(self, request_id: str) -> Response:
        """The whole answer."""
        return Response(render(self.body(request_id)), self.code, dict(self.headers), "application/json")


def invalid(message: str, violations: tuple[Violation, ...] = ()) -> Problem:
    """400: the request cannot be read."""
    return Problem(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", message, violations)


def invalid_fields(error: InvalidFieldsError) -> Problem:
    """400: fields of the request do not fit, each named."""
    first, count = error.violations[0], len(error.violations)
    where = f"{first.field} {first.message}" if first.field else f"The body {first.message}"
    return invalid(where + (f" (and {count - 1} more)" if count > 1 else ""), error.violations)


def route_not_found() -> Problem:
    """404: no route has this path."""
    return Problem(404, "NOT_FOUND", "ROUTE_NOT_FOUND", "No such route.")


def method_not_allowed(allowed: str) -> Problem:
    """405: the path exists, with other HTTP methods."""
    message = f"The route takes {allowed}."
    return Problem(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED", message, headers=(("Allow", allowed),))


def unsupported_media_type(wanted: str) -> Problem:
    """415: the body is not of the type that the route takes."""
    return Problem(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE", f"The body must be {wanted}.")


def body_too_large(limit: int) -> Problem:
    """413: the body is larger than any document may be."""
    message = f"The body must not be larger than {limit} bytes."
    return Problem(413, "RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED", message)


def head_too_large(limit: int) -> Problem:
    """431: the request line and headers are larger than any may be."""
    message = f"The request line and headers must not be larger than {limit} bytes."
    return Problem(431, "INVALID_ARGUMENT", "LIMIT_EXCEEDED", message)


def body_too_slow() -> Problem:
    """408: the client stopped sending its body."""
    return Problem(408, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "The body did not arrive in time.")


def range_not_satisfiable(size: int) -> Problem:
    """416: the range lies behind the end of the file."""
    message, headers = f"The file has {size} bytes.", (("Content-Range", f"bytes */{size}"),)
    return Problem(416, "OUT_OF_RANGE", "INVALID_ARGUMENT", message, headers=headers)


def unauthenticated(message: str) -> Problem:
    """401: the credentials cannot be read."""
    return Problem(401, "UNAUTHENTICATED", "UNAUTHENTICATED", message, headers=(("WWW-Authenticate", "Bearer"),))


def unavailable(message: str) -> Problem:
    """503: a part that is needed is away."""
    return Problem(503, "UNAVAILABLE", "UNAVAILABLE", message, headers=(("Retry-After", "1"),))


def deadline_exceeded() -> Problem:
    """504: the control plane did not answer in time."""
    message = _TRANSPORT_MESSAGES[grpc.StatusCode.DEADLINE_EXCEEDED]
    return Problem(504, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", message)


def defect() -> Problem:
    """500: something that should not happen did."""
    return Problem(500, "INTERNAL", "INTERNAL", _DEFECT)


def of(error: Exception) -> Problem:
    """The problem that any exception shows to the caller; what is not foreseen is a defect."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error)
    if isinstance(error, InvalidFieldsError):
        return invalid_fields(error)
    if isinstance(error, MalformedJsonError):
        return invalid(f"The body is not JSON: {error}.")
    return defect()


def from_rpc_error(error: grpc.aio.AioRpcError) -> Problem:
    """The REST form of what a gRPC call ended with."""
    info, violations, retry = _details(error)
    code, status = HTTP_CODES[error.code()], error.code()
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and retry is None and info and info.reason == "LIMIT_EXCEEDED":
        code = 413  # 429 would promise that a repetition may pass
    reason = info.reason if info else _REASONS.get(status, "INTERNAL")
    code = CODES_OF_REASONS.get(reason, code)
    return Problem(code, status.name, reason, _message(error, info), violations, _headers(code, retry))


def _message(error: grpc.aio.AioRpcError, info: error_details_pb2.ErrorInfo | None) -> str:
    if info is None and error.code() in _DEFECTS:
        return _DEFECT
    if info is None and error.code() in _TRANSPORT_MESSAGES:
        return _TRANSPORT_MESSAGES[error.code()]
    return error.details() or error.code().name


def _headers(code: int, retry: error_details_pb2.RetryInfo | None) -> Headers:
    if code == 401:
        return (("WWW-Authenticate", "Bearer"),)
    if retry is None:
        return (("Retry-After", "1"),) if code == 503 else ()
    delay = retry.retry_delay
    return (("Retry-After", str(max(1, math.ceil(delay.seconds + delay.nanos / 1e9)))),)


Details = tuple[error_details_pb2.ErrorInfo | None, tuple[Violation, ...], error_details_pb2.RetryInfo | None]


def _details(error: grpc.aio.AioRpcError) -> Details:
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    given = {
        each.DESCRIPTOR.name for packed in _status(error).details for each in (info, retry, bad) if packed.Unpack(each)
    }
    violations = tuple(Violation(each.field, each.description) for each in bad.field_violations)
    return info if "ErrorInfo" in given else None, violations, retry if "RetryInfo" in given else None


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break  # the code and text of the error still stand
    return status_pb2.Status()
