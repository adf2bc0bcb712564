"""The API of a control plane, call by call: `Client(address, token).runs.start(…)`.

Takes and returns the messages of the contract; there is no second model. Every method raises a `TowlineError`.
"""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from towline_sdk.agent_calls import AgentCalls
from towline_sdk.artifact_calls import ArtifactCalls
from towline_sdk.audit_calls import AuditCalls
from towline_sdk.auth_calls import AuthCalls
from towline_sdk.plugin_calls import PluginCalls
from towline_sdk.run_calls import RunCalls
from towline_sdk.schedule_calls import ScheduleCalls
from towline_sdk.secret_calls import SecretCalls
from towline_sdk.transport import Transport
from towline_sdk.user_calls import UserCalls
from towline_sdk.workflow_calls import WorkflowCalls

DEADLINE_SECONDS: Final = 15.0


class Client:
    """A connection to one control plane; use it as `async with Client(address, token) as client`.

    `address` is `host:port`, or `https://host:port` for TLS, or several of them with commas for replicas. A server's
    certificate is verified against `ca_file`, else against the roots of the system.
    """

    def __init__(
        self,
        address: str,
        token: str = "",
        *,
        ca_file: Path | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._transport = Transport(address, token, deadline_seconds, ca_file)
        self.auth = AuthCalls(self._transport)
        self.workflows = WorkflowCalls(self._transport)
        self.runs = RunCalls(self._transport)
        self.artifacts = ArtifactCalls(self._transport)
        self.plugins = PluginCalls(self._transport)
        self.agents = AgentCalls(self._transport)
        self.schedules = ScheduleCalls(self._transport)
        self.secrets = SecretCalls(self._transport)
        self.users = UserCalls(self._transport)
        self.audit = AuditCalls(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and every call on it."""
        await self._transport.close()
