"""Towline's REST API with nothing but the standard library: what `curl` would send."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

TIMEOUT_SECONDS = 30


class ApiError(Exception):
    """The API refused a call; the message is its own, with the fields that it names."""


class Api:
    """Calls in the name of one user; the token is empty before the login."""

    def __init__(self, address: str, token: str = "") -> None:
        self.address = address
        self._token = token
        # An outgoing proxy of the environment cannot know this machine's loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """Returns the resource."""
        return self._json("GET", path, None, "")

    def post(self, path: str, body: Any) -> Any:
        """Sends a JSON body and returns the answer."""
        return self._json("POST", path, json.dumps(body).encode(), "application/json")

    def upload(self, path: str, data: bytes) -> Any:
        """Sends bytes and returns the answer."""
        return self._json("POST", path, data, "application/octet-stream")

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Yields the data of server-sent events until the server says that there are no more."""
        with self._open("GET", path, None, "") as stream:
            name = ""
            for raw in stream:
                field, _, value = raw.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    if name == "end":
                        return
                    if name == "error":
                        raise ApiError(_explain(json.loads(value)))
                    yield json.loads(value)
        raise ApiError(f"the stream {path} broke off")

    def _json(self, method: str, path: str, data: bytes | None, content_type: str) -> Any:
        with self._open(method, path, data, content_type) as answer:
            return json.load(answer)

    def _open(self, method: str, path: str, data: bytes | None, content_type: str) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if content_type:
            headers["Content-Type"] = content_type
        request = urllib.request.Request(f"http://{self.address}{path}", data, headers, method=method)
        try:
            return self._opener.open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(f"{method} {path}: {_explain(json.load(error))}") from None


def _explain(body: dict[str, Any]) -> str:
    error = body["error"]
    fields = "; ".join(f"{detail['field']}: {detail['message']}" for detail in error.get("details", ()))
    return f"{error['reason']}: {error['message']} {fields}".rstrip()
