"""The calls of `AuditService`, a part of `client`, for admins."""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1 import audit_service_pb2 as pb
from towline_sdk.pages import FIRST_PAGE, Page
from towline_sdk.transport import Transport


@dataclass(frozen=True, slots=True)
class AuditCalls:
    """The log of calls that changed something, or tried to."""

    _transport: Transport

    async def list(
        self,
        user: str = "",
        method: str = "",
        *,
        start_time: Timestamp | None = None,
        end_time: Timestamp | None = None,
        page: Page = FIRST_PAGE,
    ) -> pb.ListAuditEventsResponse:
        """Returns a page of events, newest first: of a user, of a method, between two times, where these are given."""
        request = pb.ListAuditEventsRequest(
            user_id=user,
            method=method,
            start_time=start_time,
            end_time=end_time,
            page_size=page.size,
            page_token=page.token,
        )
        return await self._transport.call(request, pb.ListAuditEventsResponse)
