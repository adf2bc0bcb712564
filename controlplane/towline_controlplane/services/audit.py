"""AuditService: the audit log as an admin reads it."""

from dataclasses import dataclass
from typing import Final, cast

from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1 import audit_pb2
from towline.v1 import audit_service_pb2 as pb
from towline_controlplane.identity import AuditEvent
from towline_controlplane.services import convert
from towline_controlplane.services.callers import Context
from towline_controlplane.services.pages import PageLimits, decode_token, encode_token, gather, page_size
from towline_controlplane.store import audit_events, users
from towline_controlplane.store.audit_events import AuditFilter
from towline_controlplane.store.database import Database, Transaction

_LIMITS: Final = PageLimits()
_QUERY: Final = "ListAuditEvents"


@dataclass(frozen=True, slots=True)
class AuditService:
    """Implements `towline.v1.AuditService`."""

    database: Database

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, _context: Context
    ) -> pb.ListAuditEventsResponse:
        """Lists events, the newest first."""
        size = page_size(request.page_size, _LIMITS)
        start, end = _micros(request, "start_time"), _micros(request, "end_time")
        query = (_QUERY, request.user_id, request.method, start, end)
        after = cast("tuple[int, str] | None", decode_token(request.page_token, (int, str), *query))

        def read(tx: Transaction) -> pb.ListAuditEventsResponse:
            wanted = AuditFilter(_user_id(tx, request.user_id), request.method or None, start, end)
            page = gather(
                lambda key, limit: audit_events.list_events(tx, wanted, cast("tuple[int, str] | None", key), limit),
                lambda row: (row[0].time, row[0].id),
                after,
                size,
            )
            return pb.ListAuditEventsResponse(
                events=[_message(*row) for row in page.rows], next_page_token=encode_token(page.next_key, *query)
            )

        return await self.database.read(read)


def _user_id(tx: Transaction, id_or_email: str) -> str | None:
    if "@" in id_or_email:
        user = users.find_by_email(tx, id_or_email.strip().lower())
        return user.id if user else id_or_email
    return id_or_email or None


def _micros(request: pb.ListAuditEventsRequest, field: str) -> int | None:
    time: Timestamp = getattr(request, field)
    return time.ToMicroseconds() if request.HasField(field) else None  # pyright: ignore[reportArgumentType]


def _message(event: AuditEvent, email: str) -> audit_pb2.AuditEvent:
    return audit_pb2.AuditEvent(
        id=event.id,
        time=convert.timestamp(event.time),
        user_id=event.user_id,
        user_email=email,
        credential=event.credential.value,
        credential_id=event.credential_id,
        method=event.method,
        target=event.target,
        address=event.address,
        request_id=event.request_id,
        code=event.code,
    )
