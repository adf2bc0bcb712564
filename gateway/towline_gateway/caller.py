"""Who calls: what the control plane is told of the HTTP request besides its content.

Passes credentials on and judges none; refuses header values that gRPC metadata cannot carry.
"""

import re
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request

from towline_gateway import problems

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]{1,8192}")

Metadata = tuple[tuple[str, str], ...]


def request_id_of(headers: Headers) -> str:
    """The caller's own request id when it is well-formed, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Caller:
    """The facts of a request that go along as gRPC metadata."""

    request_id: str
    address: str
    authorization: str

    @classmethod
    def of(cls, request: Request) -> "Caller":
        """Reads a request; raises a 401 problem when its credentials are not text that a header may hold."""
        authorization = request.headers.get("authorization", "")
        if authorization and not _METADATA_VALUE.fullmatch(authorization):
            raise problems.unauthenticated("The authorization header is malformed.")
        return cls(request.state.request_id, request.client.host if request.client else "", authorization)

    def metadata(self) -> Metadata:
        """The metadata of the gRPC call."""
        known = (
            ("authorization", self.authorization),
            ("x-client-address", self.address),
            ("x-request-id", self.request_id),
        )
        return tuple((key, value) for key, value in known if value)
