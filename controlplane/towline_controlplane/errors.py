"""Everything that a caller can be told went wrong.

TowlineError
├── InvalidArgument      fields of a request are wrong; names each
│   └── InvalidDag       the DAG cannot run as written
├── Unauthenticated      no valid credentials
│   └── BadCredentials   email and password do not belong together
├── PermissionDenied     known, but not allowed
├── NotFound             no such object, or none the caller may see
│   └── RunDeleted       the run of an idempotency key is gone
├── AlreadyExists        name, email or version taken
│   ├── IdempotencyKeyReused
│   └── PluginVersionExists
├── InvalidState         not in this state of the object
├── EtagMismatch         the object has changed since the caller read it
├── SecretsDisabled      the control plane has no key for them
├── LeaseLost            the attempt is another's, or has ended
├── SessionUnknown       the agent must introduce its session first
├── SessionReplaced      another process runs with the agent's credential
├── LimitExceeded        a size or count limit
├── RateLimited          too often; says when there is room again
└── Unavailable          repeat the call
    └── IdentityInUse    another host has the agent's place as long as its lease lasts

One interceptor turns them into `google.rpc.Status`; nobody else catches them.
"""

from collections.abc import Sequence
from typing import ClassVar

from towline_dag.violation import Violation


class TowlineError(Exception):
    """Base of all; `status` is the canonical gRPC code's name, `reason` a name of `ErrorReason`."""

    status: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_seconds: float | None = None
        """After which the call may have another outcome; None: nobody knows."""


class InvalidArgument(TowlineError):
    """Fields of a request are missing, malformed or out of bounds."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        first, *others = (f"{v.field}: {v.message}" if v.field else v.message for v in self.violations)
        super().__init__(f"{first} (and {len(others)} more)" if others else first)

    @classmethod
    def of(cls, field: str, message: str) -> "InvalidArgument":
        """Returns the error for one field."""
        return cls([Violation(field, message)])


class InvalidDag(InvalidArgument):
    """The DAG of a workflow cannot run as written."""

    reason = "INVALID_DAG"


class Unauthenticated(TowlineError):
    """No credentials, or credentials that are malformed, expired or revoked."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class BadCredentials(Unauthenticated):
    """Email and password do not belong together; `user_id`, which the caller is not told, is whose email it is."""

    reason = "BAD_CREDENTIALS"

    def __init__(self, message: str, user_id: str = "") -> None:
        super().__init__(message)
        self.user_id = user_id


class PermissionDenied(TowlineError):
    """The caller is known and may not do this."""

    status = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class NotFound(TowlineError):
    """No such object, or none that the caller may see."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class RunDeleted(NotFound):
    """The run that an idempotency key started has been deleted; the key starts no other."""

    reason = "RUN_DELETED"


class AlreadyExists(TowlineError):
    """An object with this name exists."""

    status = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class IdempotencyKeyReused(AlreadyExists):
    """The idempotency key came with another request before."""

    reason = "IDEMPOTENCY_KEY_REUSED"


class PluginVersionExists(AlreadyExists):
    """The version of the plugin exists with other bytes."""

    reason = "PLUGIN_VERSION_EXISTS"


class InvalidState(TowlineError):
    """The object is in a state in which this cannot be done."""

    status = "FAILED_PRECONDITION"
    reason = "INVALID_STATE"


class EtagMismatch(TowlineError):
    """The object is no longer the one that the caller has read."""

    status = "ABORTED"
    reason = "ETAG_MISMATCH"


class SecretsDisabled(TowlineError):
    """The control plane has no key to encrypt secrets with."""

    status = "FAILED_PRECONDITION"
    reason = "SECRETS_DISABLED"


class LeaseLost(TowlineError):
    """The lease is not, or no longer, the right to its attempt: stop and discard."""

    status = "FAILED_PRECONDITION"
    reason = "LEASE_LOST"


class SessionUnknown(TowlineError):
    """The agent's session is not known: it must send its info first."""

    status = "FAILED_PRECONDITION"
    reason = "SESSION_UNKNOWN"


class SessionReplaced(TowlineError):
    """Another process runs with the agent's credential and took over."""

    status = "FAILED_PRECONDITION"
    reason = "SESSION_REPLACED"


class AgentUnsupported(TowlineError):
    """The agent speaks a version of the protocol that this control plane does not."""

    status = "FAILED_PRECONDITION"
    reason = "AGENT_UNSUPPORTED"


class LimitExceeded(TowlineError):
    """A size or count limit was exceeded."""

    status = "RESOURCE_EXHAUSTED"
    reason = "LIMIT_EXCEEDED"


class RateLimited(TowlineError):
    """The caller calls more often than it may."""

    status = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"

    def __init__(self, retry_seconds: float) -> None:
        super().__init__("too many calls; wait before you repeat this one")
        self.retry_seconds = retry_seconds


class Unavailable(TowlineError):
    """A part that is needed is away; the call may be repeated."""

    status = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class IdentityInUse(Unavailable):
    """A process on another host has the agent's place; once its lease is over, the place may be free."""

    reason = "IDENTITY_IN_USE"

    def __init__(self, host: str, lease_seconds: float) -> None:
        super().__init__(
            f"another process runs with this agent's credential, on host {host!r};"
            f" its lease lasts for another {lease_seconds:.1f} s"
        )
        self.retry_seconds = lease_seconds
