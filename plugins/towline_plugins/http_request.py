"""HTTP_REQUEST: sends a request, follows redirects, and says whether a failure is worth another try.

Private addresses are refused, at every redirect anew, unless the agent's TOWLINE_HTTP_ALLOW lists them. Secrets are
filled in here and nowhere before: the config that is recorded says `{{secret:NAME}}`.
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from email.message import Message
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin

from towline_plugins.http_address import AllowList
from towline_plugins.http_exchange import Deadline, Request, Response, Url, exchange
from towline_plugins.http_statuses import failure_of
from towline_plugins.secret_placeholders import filled
from towline_sdk.plugin import PermanentError

_DEFAULT_TIMEOUT_MS = 30_000
_MOST_REDIRECTS = 5
_SHOWN_CHARACTERS = 2000

_REDIRECTS = {301, 302, 303, 307, 308}
_REDIRECTS_KEEPING_METHOD = {307, 308}
_FRAMING_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_HEADERS_FOR_STRANGERS = {"accept", "accept-language", "content-type", "user-agent"}


def run(config: dict[str, Any], secrets: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Returns status, headers and body of the final response, if its status is below 400."""
    config = filled({**config, "url": filled(config["url"], secrets, quoted=True)}, secrets)
    allowed = AllowList.parse(os.environ.get("TOWLINE_HTTP_ALLOW", ""))
    deadline = Deadline(config.get("timeoutMs", _DEFAULT_TIMEOUT_MS) / 1000)
    request = _request(config)
    for _ in range(_MOST_REDIRECTS + 1):
        response = exchange(request, allowed, deadline)
        location = response.headers.get("location")
        if response.status not in _REDIRECTS or location is None:
            return _output(request, response)
        request = _redirected(request, response.status, location)
    raise PermanentError(f"more than {_MOST_REDIRECTS} redirects", code="HTTP_TOO_MANY_REDIRECTS")


def _request(config: dict[str, Any]) -> Request:
    headers = {name.lower(): value for name, value in config.get("headers", {}).items()}
    forbidden = {name for name in headers if name in _FRAMING_HEADERS or not _HEADER_NAME.fullmatch(name)}
    if forbidden:
        raise PermanentError(f"headers that cannot be set: {', '.join(sorted(forbidden))}", code="HTTP_REQUEST_INVALID")
    headers.setdefault("user-agent", "Towline")
    body = config.get("body")
    if body is not None and not isinstance(body, str):
        headers.setdefault("content-type", "application/json")
        body = json.dumps(body, ensure_ascii=False)
    return Request(
        config.get("method", "GET"), Url.parse(config["url"]), headers, None if body is None else body.encode()
    )


def _redirected(request: Request, status: int, location: str) -> Request:
    url = Url.parse(urljoin(f"{request.url.scheme}://{_authority(request.url)}{request.url.target}", location))
    headers = dict(request.headers)
    if url.origin != request.url.origin:
        headers = {name: value for name, value in headers.items() if name in _HEADERS_FOR_STRANGERS}
    if status in _REDIRECTS_KEEPING_METHOD or request.method in {"GET", "HEAD"}:
        return replace(request, url=url, headers=headers)
    headers.pop("content-type", None)
    return Request("GET", url, headers, None)


def _authority(url: Url) -> str:
    return f"[{url.host}]:{url.port}" if ":" in url.host else f"{url.host}:{url.port}"


def _output(request: Request, response: Response) -> dict[str, Any]:
    body = _text(response)
    if response.status < 400:
        return {"status": response.status, "headers": dict(response.headers), "body": body}
    sys.stderr.write(f"{body[:_SHOWN_CHARACTERS]}\n" if body else "")
    message = f"{request.method} {request.url} answered {response.status} {response.reason}"
    raise failure_of(response, message)


def _text(response: Response) -> str:
    declared = Message()
    declared["content-type"] = response.headers.get("content-type", "text/plain")
    try:
        text = response.body.decode(declared.get_content_charset("utf-8"), errors="replace")
    except LookupError:
        text = response.body.decode(errors="replace")
    return text.replace("\0", "\ufffd")
