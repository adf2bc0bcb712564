"""Who calls: set by the interceptor for the length of a call, read by services."""

from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from grpc import aio

from towline_controlplane.model import AgentRecord, Role, User

Context: TypeAlias = aio.ServicerContext[Any, Any]
"""The context of a call, as gRPC hands it to every method."""

_user: Final[ContextVar[User]] = ContextVar("towline_user")
_agent: Final[ContextVar[AgentRecord]] = ContextVar("towline_agent")


def enter_user(user: User) -> None:
    """Makes `user` the caller of the running call."""
    _user.set(user)


def enter_agent(agent: AgentRecord) -> None:
    """Makes `agent` the caller of the running call."""
    _agent.set(agent)


def current_user() -> User:
    """Returns the person who calls; only methods with access USER or ADMIN have one."""
    return _user.get()


def current_agent() -> AgentRecord:
    """Returns the agent that calls; only methods with access AGENT have one."""
    return _agent.get()


def visible_owner() -> str | None:
    """Returns the owner whose objects the caller may see: its own id, or None for an admin, who sees all."""
    user = current_user()
    return None if user.role is Role.ADMIN else user.id
