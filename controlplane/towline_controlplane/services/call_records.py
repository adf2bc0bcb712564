"""What is kept of calls that change something: a line in the log, and an event in the audit log.

The event is stored before the call is answered. One that cannot be stored is written to the log of the process, and
the call is answered as it ended: what it did is done.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from google.protobuf.descriptor import ServiceDescriptor

from towline_controlplane.identity import AuditEvent
from towline_controlplane.ids import new_id
from towline_controlplane.services.audited_calls import AuditedCalls
from towline_controlplane.services.gate import OpenCall

_PACKAGE: Final = "/towline.v1."

log = structlog.get_logger(__name__)


class AuditSink(Protocol):
    """Where events go."""

    def note(self, event: AuditEvent) -> asyncio.Future[None]:
        """Returns what is done once the event is stored."""
        ...


class CallRecorder:
    """Keeps record of calls of the methods in `mutations`."""

    def __init__(self, sink: AuditSink, services: Sequence[ServiceDescriptor], mutations: frozenset[str]) -> None:
        self._sink = sink
        self._mutations = mutations
        self._audited = AuditedCalls(services, mutations)

    async def record(self, call: OpenCall) -> None:
        """Stores what is known of a call that is about to be answered."""
        stored = self._note(call)
        if stored is None:
            return
        try:
            await stored
        except Exception:
            log.exception("an audit event was not stored", **_words(call))

    def close(self, call: OpenCall, seconds: float) -> None:
        """Writes the line of a call that is over; one that was cut off is noted now, and nobody waits for it."""
        if call.method not in self._mutations:
            return
        if not call.is_recorded and (stored := self._note(call)) is not None:
            stored.add_done_callback(lambda future: future.cancelled() or future.exception())
        log.info("call", code=call.code, milliseconds=round(seconds * 1000, 1))

    def _note(self, call: OpenCall) -> "asyncio.Future[None] | None":
        if call.method not in self._mutations or not call.is_accountable:
            return None
        call.is_recorded = True
        target = self._audited.target(call.method, call.request, call.answer)
        event = AuditEvent(
            id=new_id(),
            time=0,
            user_id=call.user_id or target.get("userId", ""),
            credential=call.credential.kind,
            credential_id=call.credential.id,
            method=call.method.removeprefix(_PACKAGE),
            target=target,
            address=call.address,
            request_id=call.request_id,
            code=call.code,
        )
        return self._sink.note(event)


def _words(call: OpenCall) -> dict[str, str]:
    return {"user_id": call.user_id, "credential_id": call.credential.id, "address": call.address, "code": call.code}
