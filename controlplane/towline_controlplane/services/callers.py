"""Who calls: set by the interceptor for the length of a call, read by services."""

from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from grpc import aio

from towline_controlplane.identity import NOBODY, Person
from towline_controlplane.model import AgentRecord, Role, User

Context: TypeAlias = aio.ServicerContext[Any, Any]
"""The context of a call, as gRPC hands it to every method."""

_person: Final[ContextVar[Person]] = ContextVar("towline_person")
_agent: Final[ContextVar[AgentRecord]] = ContextVar("towline_agent")
_address: Final[ContextVar[str]] = ContextVar("towline_address", default="")


def enter_address(address: str) -> None:
    """Makes `address` where the running call comes from; empty if that cannot be told."""
    _address.set(address)


def enter_person(person: Person) -> None:
    """Makes `person` the caller of the running call."""
    _person.set(person)


def enter_user(user: User) -> None:
    """Makes `user` the caller of the running call, by a credential that does not matter."""
    _person.set(Person(user, NOBODY))


def enter_agent(agent: AgentRecord) -> None:
    """Makes `agent` the caller of the running call."""
    _agent.set(agent)


def current_address() -> str:
    """Returns where the running call comes from; empty if that cannot be told."""
    return _address.get()


def current_person() -> Person:
    """Returns the person who calls, with the credential; only methods with access USER or ADMIN have one."""
    return _person.get()


def current_user() -> User:
    """Returns the user who calls; only methods with access USER or ADMIN have one."""
    return _person.get().user


def current_agent() -> AgentRecord:
    """Returns the agent that calls; only methods with access AGENT have one."""
    return _agent.get()


def visible_owner() -> str | None:
    """Returns the owner whose objects the caller may see: its own id, or None for an admin, who sees all."""
    user = current_user()
    return None if user.role is Role.ADMIN else user.id


def metadata_of(context: Context, wanted: str) -> list[str]:
    """Returns the texts that a caller sent under a key."""
    pairs = context.invocation_metadata() or ()
    return [value for key, value in pairs if key == wanted and isinstance(value, str)]
