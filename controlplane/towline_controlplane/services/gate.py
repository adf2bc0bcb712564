"""The gate before every method: who calls, by what, and whether it may. The rules are the contract's.

Nothing is decided by the name of a method, and what no rule opens is closed.
"""

import re
from dataclasses import dataclass, field
from typing import Final, Protocol

from google.protobuf.message import Message

from towline.v1.access_pb2 import ADMIN, AGENT, PUBLIC, USER
from towline_controlplane.api_keys import reaches
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
    is_admitted: bool = False
    """Enough is known of the caller to hold it to account."""
    request: Message | None = None
    answer: Message | None = None
    code: str = "CANCELLED"
    is_recorded: bool = False


class Gate:
    """Lets callers in."""

    def __init__(self, identity: Identity, rules: AccessRules) -> None:
        self._identity = identity
        self._rules = rules

    def is_open(self, method: str) -> bool:
        """Tells whether anybody may call a method."""
        return self._rules.access.get(method) == PUBLIC

    async def admit(self, call: OpenCall, context: Context) -> None:
        """Makes the caller known to the servicer and notes it in the call; raises unless it may call the method."""
        access = self._rules.access.get(call.method)
        if access == PUBLIC:
            call.is_admitted = True
        elif access == AGENT:
            agent = await self._identity.agent_of(_bearer(context))
            callers.enter_agent(agent)
            call.caller_id, call.is_admitted = agent.id, True
        elif access in (USER, ADMIN):
            person = await self._identity.person_of(_bearer(context))
            call.caller_id = call.user_id = person.user.id
            call.credential, call.is_admitted = person.credential, True
            self._check_scope(call.method, person)
            if access == ADMIN and person.user.role is not Role.ADMIN:
                raise PermissionDenied("only an admin may do this")
            callers.enter_person(person)
        else:
            raise PermissionDenied("nobody may call this method")

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
