"""HTTP_REQUEST against a real server: what is sent, what comes back, what each failure means."""

import json
import socket
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import jsonschema
import pytest
from http_server import Answer, Server, serving

from towline_plugins import http_exchange, http_request
from towline_plugins.catalog import BUILTINS
from towline_sdk.plugin import PermanentError, TransientError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    with serving() as server:
        monkeypatch.setenv("TOWLINE_HTTP_ALLOW", server.address)
        yield server


def test_answer_becomes_the_output(server: Server) -> None:
    server.answers["/a?b=c%20d"] = Answer(201, {"X-One": "1", "Content-Type": "text/plain"}, b"made")
    output = http_request.run({"url": server.url("/a?b=c d")})
    assert (output["status"], output["body"], output["headers"]["x-one"]) == (201, "made", "1")
    jsonschema.validate(output, BUILTINS["HTTP_REQUEST"].output_schema)
    (seen,) = server.seen
    assert (seen.method, seen.body) == ("GET", b"")
    assert seen.headers["host"] == server.address


@pytest.mark.parametrize(
    ("config", "body", "content_type"),
    [
        ({"body": {"a": ["ä"]}}, '{"a": ["ä"]}'.encode(), "application/json"),
        ({"body": False}, b"false", "application/json"),
        ({"body": {"a": 1}, "headers": {"Content-Type": "application/merge-patch+json"}}, b'{"a": 1}', None),
        ({"body": "plain ä"}, "plain ä".encode(), None),
        ({}, b"", None),
    ],
)
def test_body_and_headers_are_sent(
    server: Server, config: dict[str, Any], body: bytes, content_type: str | None
) -> None:
    server.answers["/"] = Answer()
    http_request.run({"method": "POST", "url": server.url(""), **config})
    (seen,) = server.seen
    wanted = content_type or config.get("headers", {}).get("Content-Type")
    assert (seen.method, seen.target, seen.body, seen.headers.get("content-type")) == ("POST", "/", body, wanted)


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=iso-8859-1", b"\xe4", "ä"),
        ("application/json", '{"a":"ä"}'.encode(), '{"a":"ä"}'),
        ("text/plain; charset=utf-8", b"a\xff\0b", "a\ufffd\ufffdb"),
        ("text/plain; charset=nonsense", b"a", "a"),
    ],
)
def test_body_is_text(server: Server, content_type: str, body: bytes, text: str) -> None:
    server.answers["/"] = Answer(200, {"Content-Type": content_type}, body)
    assert http_request.run({"url": server.url("/")})["body"] == text


@pytest.mark.parametrize("status", [500, 503, 599, 429])
def test_failures_worth_another_try(server: Server, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers["/x"] = Answer(status, {"Retry-After": "7"}, b"because")
    with pytest.raises(TransientError, match=str(status)) as failure:
        http_request.run({"url": server.url("/x")})
    assert (failure.value.code, failure.value.retry_after_ms) == (f"HTTP_{status}", 7000)
    assert capsys.readouterr().err == "because\n"


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_failures_that_stay(server: Server, status: int) -> None:
    server.answers["/x?token=secret"] = Answer(status)
    with pytest.raises(PermanentError, match=str(status)) as failure:
        http_request.run({"url": server.url("/x?token=secret")})
    assert failure.value.code == f"HTTP_{status}"
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("wish", "least", "most"),
    [
        ("0", 0, 0),
        ("2", 2000, 2000),
        ("99999999", 86_400_000, 86_400_000),
        ("soon", 0, 0),
        ("-3", 0, 0),
        (format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 3_000_000, 3_600_000),
        (format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True), 0, 0),
    ],
    ids=["at-once", "seconds", "too-long", "nonsense", "negative", "date-ahead", "date-past"],
)
def test_retry_after_is_honoured(server: Server, wish: str, least: int, most: int) -> None:
    server.answers["/"] = Answer(503, {"Retry-After": wish})
    with pytest.raises(TransientError) as failure:
        http_request.run({"url": server.url("/")})
    assert least <= failure.value.retry_after_ms <= most


@pytest.mark.parametrize("target", ["/silent", "/dripping"])
def test_deadline_ends_the_wait(server: Server, target: str) -> None:
    with pytest.raises(TransientError) as failure:
        http_request.run({"url": server.url(target), "timeoutMs": 300})
    assert failure.value.code == "HTTP_TIMEOUT"


def test_response_cut_short_is_no_response(server: Server) -> None:
    with pytest.raises(TransientError) as failure:
        http_request.run({"url": server.url("/cut")})
    assert failure.value.code == "HTTP_CONNECTION"


def test_nobody_there_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_HTTP_ALLOW", "127.0.0.0/8")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError) as failure:
            http_request.run({"url": f"http://127.0.0.1:{unused.getsockname()[1]}/"})
    assert failure.value.code == "HTTP_CONNECTION"


def test_plain_server_behind_https_is_a_failed_connection(server: Server) -> None:
    with pytest.raises(TransientError) as failure:
        http_request.run({"url": f"https://{server.address}/"})
    assert failure.value.code == "HTTP_CONNECTION"


def test_body_larger_than_the_limit_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_exchange, "LARGEST_BODY_BYTES", 1000)
    server.answers["/fits"] = Answer(200, {}, b"x" * 1000)
    server.answers["/large"] = Answer(200, {}, b"x" * 1001)
    assert len(http_request.run({"url": server.url("/fits")})["body"]) == 1000
    with pytest.raises(PermanentError) as failure:
        http_request.run({"url": server.url("/large")})
    assert failure.value.code == "HTTP_BODY_TOO_LARGE"


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [(301, "POST", "GET"), (302, "POST", "GET"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"), (307, "POST", "POST")],
)
def test_redirect_is_followed(server: Server, status: int, method: str, then: str) -> None:
    server.answers["/old"] = Answer(status, {"Location": "new?x=1"})
    server.answers["/new?x=1"] = Answer(200, {}, b"" if method == "HEAD" else b"here")
    secret = {"Authorization": "Bearer x"}
    output = http_request.run({"method": method, "url": server.url("/old"), "body": {"a": 1}, "headers": secret})
    assert output["status"] == 200
    second = server.seen[1]
    assert (second.method, second.headers["authorization"]) == (then, "Bearer x")
    assert second.body == (b'{"a": 1}' if then != "GET" else b"")


def test_redirect_to_another_origin_carries_no_secret(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as other:
        monkeypatch.setenv("TOWLINE_HTTP_ALLOW", "127.0.0.1")
        server.answers["/"] = Answer(302, {"Location": other.url("/there")})
        other.answers["/there"] = Answer()
        secrets = {"Authorization": "a", "X-Api-Key": "b", "Cookie": "c", "Accept": "text/plain"}
        http_request.run({"url": server.url("/"), "headers": secrets})
        (seen,) = other.seen
        assert {"authorization", "x-api-key", "cookie"}.isdisjoint(seen.headers)
        assert seen.headers["accept"] == "text/plain"


def test_secrets_are_filled_in_where_the_config_names_them(server: Server) -> None:
    server.answers["/a%2Fb%20c?k=a%2Fb%20c"] = Answer(200, {}, b"here")
    config = {
        "method": "POST",
        "url": server.url("/{{secret:KEY}}?k={{secret:KEY}}"),
        "headers": {"Authorization": "Bearer {{secret:KEY}}"},
        "body": {"keys": ["{{secret:KEY}}", 1, None]},
    }
    assert http_request.run(config, {"KEY": "a/b c"})["body"] == "here"
    (seen,) = server.seen
    assert seen.headers["authorization"] == "Bearer a/b c"
    assert json.loads(seen.body) == {"keys": ["a/b c", 1, None]}


def test_what_a_secret_says_is_not_filled_in_again(server: Server) -> None:
    server.answers["/"] = Answer()
    config = {"url": server.url("/"), "headers": {"A": "{{secret:A}}"}}
    http_request.run(config, {"A": "{{secret:B}}", "B": "planted"})
    assert server.seen[0].headers["a"] == "{{secret:B}}"


def test_a_secret_that_was_not_given_is_named(server: Server) -> None:
    with pytest.raises(PermanentError, match="the secret OTHER was not given") as failure:
        http_request.run({"url": server.url("/"), "body": "{{secret:OTHER}}"}, {"KEY": "planted"})
    assert failure.value.code == "SECRET_UNAVAILABLE"
    assert "planted" not in str(failure.value)


def test_endless_redirects_are_given_up(server: Server) -> None:
    server.answers["/"] = Answer(302, {"Location": "/"})
    with pytest.raises(PermanentError) as failure:
        http_request.run({"url": server.url("/")})
    assert failure.value.code == "HTTP_TOO_MANY_REDIRECTS"
    assert len(server.seen) == 6


def test_redirect_to_a_private_address_is_refused(server: Server) -> None:
    with serving() as internal:
        for location in (internal.url("/admin"), f"http://localhost:{internal.server_port}/admin"):
            server.answers["/"] = Answer(302, {"Location": location})
            with pytest.raises(PermanentError) as failure:
                http_request.run({"url": server.url("/")})
            assert failure.value.code == "HTTP_ADDRESS_FORBIDDEN"
        assert internal.seen == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.com/"])
def test_redirect_to_something_else_than_http_is_refused(server: Server, location: str) -> None:
    server.answers["/"] = Answer(302, {"Location": location})
    with pytest.raises(PermanentError) as failure:
        http_request.run({"url": server.url("/")})
    assert failure.value.code == "HTTP_URL_INVALID"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "/path",
        "file:///etc/passwd",
        "http://",
        "http://u:p@example.com/",
        "http://x:99999/",
        "http://[::1",
    ],
)
def test_url_that_cannot_be_requested(url: str) -> None:
    with pytest.raises(PermanentError) as failure:
        http_request.run({"url": url})
    assert failure.value.code == "HTTP_URL_INVALID"


@pytest.mark.parametrize(
    "headers", [{"Host": "x"}, {"transfer-encoding": "chunked"}, {"X": "a\r\nY: b"}, {"Bad Name": "x"}, {"X": "\u20ac"}]
)
def test_header_that_would_change_the_framing_is_refused(server: Server, headers: dict[str, str]) -> None:
    with pytest.raises(PermanentError) as failure:
        http_request.run({"url": server.url("/"), "headers": headers})
    assert failure.value.code == "HTTP_REQUEST_INVALID"
    assert server.seen == []


def test_output_is_json(server: Server) -> None:
    server.answers["/"] = Answer(200, {"X": "1"}, b'{"a": 1}')
    output = http_request.run({"url": server.url("/")})
    assert json.loads(json.dumps(output, allow_nan=False))["body"] == '{"a": 1}'
