"""AWS Signature Version 4 for S3: which headers prove to a store who sends a request. Pure but for the hash.

Payloads are not part of the signature (`UNSIGNED-PAYLOAD`): they are streamed, and a digest would cost a second one.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks."""

    access_key: str
    secret_key: str
    region: str
    session_token: str = ""


def path_of(*parts: str) -> str:
    """Returns the path of an object as it is sent and signed: every byte but the unreserved and `/` in percent."""
    return "/" + "/".join(quote(part, safe="/-_.~") for part in parts)


def signed(
    method: str, path: str, headers: Mapping[str, str], credentials: Credentials, now: datetime, payload: str = UNSIGNED
) -> dict[str, str]:
    """Returns the headers (names in lower case, `host` among them) with those that sign the request.

    `path` is encoded as by `path_of`; there is no query.
    """
    time = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{time[:8]}/{credentials.region}/s3/aws4_request"
    whole = {**headers, "x-amz-date": time, "x-amz-content-sha256": payload}
    if credentials.session_token:
        whole["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(whole))
    lines = "".join(f"{name}:{' '.join(whole[name].split())}\n" for name in sorted(whole))
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{payload}"
    to_sign = f"{_ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(_key(credentials, scope), to_sign.encode(), hashlib.sha256).hexdigest()
    proof = f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**whole, "authorization": proof}


def _key(credentials: Credentials, scope: str) -> bytes:
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
