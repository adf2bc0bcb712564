"""The gate before every method: who calls, by what, and whether it may. The rules are the contract's.

Nothing is decided by the name of a method, and what no rule opens is closed.
"""

import re
from dataclasses import dataclass, field
from typing import Final, Protocol

from google.protobuf.message import Message

from towline.v1.access_pb2 import ADMIN, AGENT, PUBLIC, USER
from towline_controlplane.api_keys import reaches
from towline_controlplane.call_limits import CallLimits
from towline_controlplane.errors import PermissionDenied, Unauthenticated
from towline_controlplane.identity import NOBODY, Credential, CredentialKind, Person
from towline_controlplane.model import AgentRecord, Role
from towline_controlplane.services import callers
from towline_controlplane.services.access import AccessRules
from towline_controlplane.services.callers import Context, metadata_of

_BEARER: Final = re.compile(r"[Bb]earer ([\x21-\x7e]+)")
ANYBODY: Final = "anybody"


class Identity(Protocol):
    """Recognises callers by what they present; raises Unauthenticated."""

    async def person_of(self, presented: str) -> Person:
        """Returns the user of an access token or API key."""
        ...

    async def agent_of(self, credential: str) -> AgentRecord:
        """Returns the agent of a credential."""
        ...


@dataclass(slots=True)
class OpenCall:
    """A call and what is known of it so far."""

    method: str
    request_id: str
    address: str
    caller_id: str = ANYBODY
    user_id: str = ""
    """Of a person who calls, or of whose account a failed sign-in was."""
    credential: Credential = field(default=NOBODY)
    is_accountable: bool = False
    """Enough is known of the caller for the audit log."""
    request: Message | None = field(default=None, repr=False)
    answer: Message | None = field(default=None, repr=False)
    code: str = "CANCELLED"
    is_recorded: bool = False


class Gate:
    """Lets callers in."""

    def __init__(self, identity: Identity, rules: AccessRules, limits: CallLimits) -> None:
        self._identity = identity
        self._rules = rules
        self._limits = limits

    def is_open(self, method: str) -> bool:
        """Tells whether anybody may call a method."""
        return self._rules.access.get(method) == PUBLIC

    async def admit(self, call: OpenCall, context: Context) -> None:
        """Makes the caller known to the servicer and notes it in the call; raises unless it may call the method now."""
        callers.enter_address(call.address)
        kind = self._rules.classes.get(call.method)
        if kind is not None:
            # Before anything else is done for the caller, who may be anybody.
            await self._limits.check_address(kind, call.address)
        person = await self._recognise(call, context)
        if kind is not None and person is not None:
            await self._limits.check_user(kind, person.user.id)
        call.is_accountable = True
        self._permit(call.method, person)

    async def look_again(self, call: OpenCall, context: Context) -> None:
        """Raises if the caller may not call the method any more."""
        self._permit(call.method, await self._recognise(call, context))

    async def _recognise(self, call: OpenCall, context: Context) -> Person | None:
        access = self._rules.access.get(call.method)
        if access == AGENT:
            agent = await self._identity.agent_of(_bearer(context))
            callers.enter_agent(agent)
            call.caller_id = agent.id
        if access not in (USER, ADMIN):
            return None
        person = await self._identity.person_of(_bearer(context))
        callers.enter_person(person)
        call.caller_id = call.user_id = person.user.id
        call.credential = person.credential
        return person

    def _permit(self, method: str, person: Person | None) -> None:
        access = self._rules.access.get(method)
        if access not in (PUBLIC, AGENT, USER, ADMIN):
            raise PermissionDenied("nobody may call this method")
        if person is None:
            return
        self._check_scope(method, person)
        if access == ADMIN and person.user.role is not Role.ADMIN:
            raise PermissionDenied("only an admin may do this")

    def _check_scope(self, method: str, person: Person) -> None:
        if person.credential.kind is not CredentialKind.API_KEY:
            return
        needed = self._rules.key_scopes.get(method)
        if needed is None:
            raise PermissionDenied("no API key may do this: sign in")
        if needed and not reaches(person.credential.scopes, needed):
            raise PermissionDenied(f"the API key lacks the scope {needed}")


def _bearer(context: Context) -> str:
    given = metadata_of(context, "authorization")
    form = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if form is None:
        raise Unauthenticated("send one header `authorization: Bearer <token>`")
    return form.group(1)
