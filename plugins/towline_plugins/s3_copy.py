"""S3_COPY: copies an object, inside one store by the store itself, between two of them through this host.

Where stores may be is ruled as for HTTP_REQUEST. A copy is repeatable: the target is whole or not there.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import IO, Any

from towline_plugins.http_address import AllowList
from towline_plugins.http_exchange import Deadline, Request, Response, Url, exchange
from towline_plugins.http_statuses import failure_of
from towline_plugins.s3_signature import Credentials, path_of, signed
from towline_plugins.secret_placeholders import filled
from towline_sdk.plugin import PermanentError, TransientError

_DEFAULT_TIMEOUT_MS = 300_000
_DEFAULT_REGION = "us-east-1"
_LARGEST_OBJECT_BYTES = 5 << 30
"""What stores take in one request."""
_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.{1,1024})", re.DOTALL)
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")


@dataclass(frozen=True, slots=True)
class _Store:
    """Where a store is, and who asks it."""

    url: Url
    credentials: Credentials


def run(config: dict[str, Any], secrets: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Returns source, target and size of what was copied."""
    config = filled(config, secrets)
    allowed = AllowList.parse(os.environ.get("TOWLINE_HTTP_ALLOW", ""))
    source, target = _object(config["source"]), _object(config["target"])
    there = _store(config.get("store", {}), secrets)
    here = _store(config["targetStore"], secrets) if "targetStore" in config else there
    calls = _Calls(allowed, Deadline(config.get("timeoutMs", _DEFAULT_TIMEOUT_MS) / 1000))
    size = calls.size(there, source)
    if size > _LARGEST_OBJECT_BYTES:
        raise PermanentError(
            f"the object has {size} bytes; at most {_LARGEST_OBJECT_BYTES} can be copied", code="S3_TOO_LARGE"
        )
    if here == there:
        calls.copy(here, source, target)
    else:
        with tempfile.TemporaryFile() as file:
            calls.download(there, source, file)
            file.seek(0)
            calls.upload(here, target, file, size)
    copied = calls.size(here, target)
    if copied != size:
        raise PermanentError(
            f"the target has {copied} bytes, the source {size}: it was changed meanwhile", code="S3_CHANGED"
        )
    return {"source": config["source"], "target": config["target"], "sizeBytes": size}


def _object(text: str) -> str:
    """Returns the path of an object, as stores are asked for it."""
    found = _OBJECT.fullmatch(text)
    if found is None:
        raise PermanentError(f"{text[:200]!r} is not s3://bucket/key", code="S3_URL_INVALID")
    return path_of(*found.groups())


def _store(config: Mapping[str, str], secrets: Mapping[str, str]) -> _Store:
    region = config.get("region", _DEFAULT_REGION)
    endpoint = Url.parse(config.get("endpoint", f"https://s3.{region}.amazonaws.com"))
    access_key = config.get("accessKeyId", secrets.get("AWS_ACCESS_KEY_ID", ""))
    secret_key = config.get("secretAccessKey", secrets.get("AWS_SECRET_ACCESS_KEY", ""))
    if not access_key or not secret_key:
        message = "give the step the secrets AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the store keys of its own"
        raise PermanentError(message, code="S3_CREDENTIALS_MISSING")
    token = config.get("sessionToken", secrets.get("AWS_SESSION_TOKEN", ""))
    return _Store(endpoint, Credentials(access_key, secret_key, region, token))


@dataclass(frozen=True, slots=True)
class _Calls:
    """The requests that a copy consists of, all before one deadline."""

    allowed: AllowList
    deadline: Deadline

    def size(self, store: _Store, path: str) -> int:
        """Returns how many bytes an object has."""
        return int(self._send(store, "HEAD", path).headers.get("content-length", 0))

    def copy(self, store: _Store, source: str, target: str) -> None:
        """Lets the store copy an object."""
        answer = self._send(store, "PUT", target, {"x-amz-copy-source": source})
        code = _CODE.search(answer.body)  # it may find out when it has already said 200
        if code is not None:
            raise TransientError(f"the store could not copy the object: {code[1].decode()}", code="S3_COPY_FAILED")

    def download(self, store: _Store, path: str, file: IO[bytes]) -> None:
        """Writes an object into a file."""
        self._send(store, "GET", path, sink=file)

    def upload(self, store: _Store, path: str, file: IO[bytes], size: int) -> None:
        """Makes an object of a file."""
        self._send(store, "PUT", path, {"content-length": str(size)}, file)

    def _send(
        self,
        store: _Store,
        method: str,
        path: str,
        more: Mapping[str, str] = MappingProxyType({}),
        body: IO[bytes] | None = None,
        sink: IO[bytes] | None = None,
    ) -> Response:
        url = Url(store.url.scheme, store.url.host, store.url.port, path)
        headers = signed(method, path, {"host": url.authority, **more}, store.credentials, datetime.now(UTC))
        request = Request(method, url, headers, body if body is not None or method != "PUT" else b"")
        response = exchange(request, self.allowed, self.deadline, sink)
        if response.status >= 300:
            code = _CODE.search(response.body)
            said = f"{method} {url} answered {response.status} {code[1].decode() if code else response.reason}"
            raise failure_of(response, said, prefix="S3")
        return response
