"""What the agent asks of the control plane, and the errors that say what to do next.

`grpc_control_plane.py` speaks to a real one and `testing.py` plays one. An error names the decision of the caller,
never the transport's reason for it.

    ControlPlaneError
    ├── Unavailable             repeat the call later
    │   └── IdentityInUse       another host has our place: come in once its lease is over, or give up
    ├── SessionUnknown          Sync with the agent's info, then repeat the call
    ├── RequestRefused          this request can never succeed: do not repeat it
    ├── LeaseLost               the attempt is not ours any more: do nothing further for it
    └── AgentMustStop           nothing that this process does will be accepted again
        ├── SessionReplaced     another process runs with this agent's credential
        ├── AgentUnsupported    this version of the agent is too old for the control plane, or too new
        └── CredentialRefused   the credential or the enrollment token is not valid (any more)
"""

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from towline.v1.agent_service_pb2 import (
    AppendLogsRequest,
    AppendLogsResponse,
    EnrollRequest,
    EnrollResponse,
    InputArtifact,
    Lease,
    PullRequest,
    PullResponse,
    PutArtifactResponse,
    ReportRequest,
    ReportResponse,
    ResultArtifact,
    SyncRequest,
    SyncResponse,
)


class ControlPlaneError(Exception):
    """A call without a usable answer."""


class Unavailable(ControlPlaneError):
    """The control plane is away or busy; whether it saw the request is not known."""


class IdentityInUse(Unavailable):
    """A process on another host has this agent's place; its lease lasts for another `lease_seconds`."""

    def __init__(self, message: str, lease_seconds: float) -> None:
        super().__init__(message)
        self.lease_seconds = lease_seconds


class SessionUnknown(ControlPlaneError):
    """The control plane does not know this session."""


class RequestRefused(ControlPlaneError):
    """The control plane cannot accept this request, however often it is sent."""


class LeaseLost(ControlPlaneError):
    """The attempt that the request is for is another's, or has ended."""


class AgentMustStop(ControlPlaneError):
    """This process has lost its place."""


class SessionReplaced(AgentMustStop):
    """Another process has the agent's identity."""


class AgentUnsupported(AgentMustStop):
    """The control plane does not speak this agent's version of the protocol."""


class CredentialRefused(AgentMustStop):
    """The control plane does not accept who we say we are."""


class ControlPlane(Protocol):
    """The calls of the event loop. Each raises a ControlPlaneError."""

    async def enroll(self, request: EnrollRequest) -> EnrollResponse:
        """Trades an enrollment token for an identity; needs no credential."""
        ...

    async def pull(self, request: PullRequest) -> PullResponse:
        """Waits for work, at most as long as the request says."""
        ...

    async def report(self, request: ReportRequest) -> ReportResponse:
        """Ends attempts; safe to repeat."""
        ...

    def append_logs(self, requests: AsyncIterator[AppendLogsRequest]) -> AsyncIterator[AppendLogsResponse]:
        """Answers each request in order, for as long as both sides go on."""
        ...

    def fetch_plugin(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Yields the bytes of a bundle from `offset` on."""
        ...

    async def put_artifact(
        self, lease: Lease, artifact: ResultArtifact, offset: int, chunks: Iterator[bytes]
    ) -> PutArtifactResponse:
        """Sends a file from `offset` on; answers whether it is stored, else where to go on."""
        ...

    def get_artifact(self, lease: Lease, artifact: InputArtifact, offset: int) -> AsyncIterator[bytes]:
        """Yields the bytes of an input of a leased step from `offset` on."""
        ...


class LeaseRenewal(Protocol):
    """The one call that has a thread and a connection of its own, so that no load in the event loop delays it."""

    def sync(self, request: SyncRequest, timeout_seconds: float) -> SyncResponse:
        """Renews the leases and brings directives; blocks. Raises a ControlPlaneError."""
        ...

    def close(self) -> None:
        """Makes a call under way fail at once; may be called from any thread."""
        ...
