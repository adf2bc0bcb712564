"""Everything that a call can fail with, as the caller must act on it.

TowlineError
├── InvalidArgumentError        what was sent is wrong; `violations` names each place
│   ├── InvalidDocumentError    a JSON document, refused before anything was sent
│   └── InvalidBundleError      a plugin folder, refused before anything was sent
├── UnauthenticatedError        no credentials, or bad ones: sign in
├── PermissionDeniedError       the caller is known and may not do this
├── NotFoundError               no such object, or none that the caller may see
├── ConflictError               the object exists already, or its state forbids the call
├── LimitExceededError          a size, count or rate limit
├── UnavailableError            the server is away or too slow: repeat the call
└── ServerError                 a defect of the server; `request_id` finds it in its log
"""

from towline_dag.violation import Violation


class TowlineError(Exception):
    """A call failed; `reason` is stable and meant for programs, `message` for people.

    `retry_seconds` is when the server says that the call may be repeated, if it does.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        request_id: str = "",
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = violations
        self.request_id = request_id
        self.retry_seconds = retry_seconds


class InvalidArgumentError(TowlineError):
    """What was sent is wrong."""


class InvalidDocumentError(InvalidArgumentError):
    """A JSON document does not say what it must."""


class InvalidBundleError(InvalidArgumentError):
    """A folder is not a plugin."""


class UnauthenticatedError(TowlineError):
    """No credentials, or bad ones."""


class PermissionDeniedError(TowlineError):
    """The caller may not do this."""


class NotFoundError(TowlineError):
    """No such object, or none that the caller may see."""


class ConflictError(TowlineError):
    """The object exists already, or its state forbids the call."""


class LimitExceededError(TowlineError):
    """A size, count or rate limit was exceeded."""


class UnavailableError(TowlineError):
    """The server is away or too slow."""


class ServerError(TowlineError):
    """A defect of the server."""
