"""The route table follows the contract: all of it, nothing else, and what cannot work is refused at start."""

import asyncio
from typing import Any

import grpc
import pytest
from gateway_fakes import in_loop
from gateway_kinds import Kinds, service_of
from google.api.http_pb2 import HttpRule
from starlette.requests import Request
from starlette.types import Message

from towline_gateway import contract, routes
from towline_gateway.api import Api
from towline_gateway.codec import InvalidFieldsError
from towline_gateway.problems import Problem
from towline_gateway.streams import StreamEndpoint
from towline_gateway.templates import parse_template
from towline_gateway.transcode import Transcoder

# The REST routes of the design. A route that is missing here is missing in the documents of the users too.
PROMISED = {
    "POST /api/auth/register",
    "POST /api/auth/login",
    "GET /api/auth/me",
    "POST /api/workflows",
    "GET /api/workflows",
    "GET /api/workflows/{workflow_id}",
    "PUT /api/workflows/{workflow_id}",
    "DELETE /api/workflows/{workflow_id}",
    "POST /api/workflows/{workflow_id}/versions",
    "GET /api/workflows/{workflow_id}/versions",
    "PUT /api/workflows/{workflow_id}/versions/{version_id}/pin",
    "POST /api/workflows/{workflow_id}/execute",
    "GET /api/runs",
    "GET /api/runs/{run_id}",
    "POST /api/runs/{run_id}/pause",
    "POST /api/runs/{run_id}/resume",
    "POST /api/runs/{run_id}/cancel",
    "GET /api/runs/{run_id}/steps",
    "GET /api/runs/{run_id}/steps/{node_id}",
    "GET /api/runs/{run_id}/events",
    "GET /api/runs/{run_id}/logs",
    "POST /api/plugins",
    "GET /api/plugins",
    "POST /api/secrets",
    "GET /api/secrets",
    "PUT /api/secrets/{name}",
    "GET /api/secrets/{secret_id}",
    "DELETE /api/secrets/{secret_id}",
    "PUT /api/secrets/{secret_id}/grants/{plugin}",
    "DELETE /api/secrets/{secret_id}/grants/{plugin}",
    "POST /api/secrets/rotate",
}
TABLE = routes.derive(contract.services())


def test_every_public_method_is_routed_and_no_other() -> None:
    bound = {binding.method.full_name for binding in TABLE.bindings}
    ruled = {
        method.full_name
        for service in contract.services()
        for method in service.methods
        if any(True for _ in contract.http_rules(method))
    }
    assert bound == ruled
    assert not {name for name in bound if ".AgentService." in name}
    public = {service.full_name for service in contract.services()} - {"towline.v1.AgentService"}
    assert {name.rpartition(".")[0] for name in bound} == public


def test_every_promised_route_exists() -> None:
    assert {f"{binding.verb} {binding.template.text}" for binding in TABLE.bindings} >= PROMISED


def test_no_route_is_for_agents() -> None:
    assert {contract.access(binding.method) for binding in TABLE.bindings} <= {"PUBLIC", "USER", "ADMIN"}


def test_every_route_finds_itself() -> None:
    for binding in TABLE.bindings:
        values = tuple(f"value {number}" for number in range(len(binding.template.variables)))
        path = binding.template.text
        for name, value in zip(binding.template.variables, values, strict=True):
            path = path.replace(f"{{{name}}}", value.replace(" ", "%20"))
        match = TABLE.find(path)[binding.verb]
        assert (match.binding, match.values) == (binding, values)


def test_every_endpoint_can_be_made() -> None:
    async def scenario() -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            Api(TABLE, channel, asyncio.Event())

    asyncio.run(scenario())


RICH = service_of(
    {
        "Get": HttpRule(
            get="/v/{one_string}",
            additional_bindings=[HttpRule(get="/v/fixed"), HttpRule(post="/w/{inner.one_int64}/x", body="inner")],
        ),
        "Undelete": HttpRule(post="/v/{one_string}:undelete", body="*"),
        "Change": HttpRule(patch="/v/{one_string}", body="values_of"),
    }
)
RICH_TABLE = routes.derive([RICH])


@pytest.mark.parametrize(
    ("verb", "path", "template", "values"),
    [
        ("GET", "/v/a", "/v/{one_string}", ("a",)),
        ("GET", "/v/fixed", "/v/fixed", ()),
        ("HEAD", "/v/fixed", "/v/fixed", ()),
        ("GET", "/v/a:undelete", "/v/{one_string}", ("a:undelete",)),
        ("POST", "/v/a:undelete", "/v/{one_string}:undelete", ("a",)),
        ("POST", "/v/a%3Aundelete", None, ()),
        ("PATCH", "/v/fixed", "/v/{one_string}", ("fixed",)),
        ("POST", "/w/7/x", "/w/{inner.one_int64}/x", ("7",)),
        ("GET", "/v", None, ()),
        ("GET", "/v/a/b", None, ()),
        ("GET", "/v/a%2Fb", "/v/{one_string}", ("a/b",)),
    ],
)
def test_matching(verb: str, path: str, template: str | None, values: tuple[str, ...]) -> None:
    match = RICH_TABLE.find(path).get(verb)
    found = (match.binding.template.text, match.values) if match else (None, ())
    assert found == (template, values)


def _request(path: str, body: bytes = b"", query: bytes = b"") -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    headers = [(b"content-type", b"application/json")]
    return Request({"type": "http", "path": path, "query_string": query, "headers": headers}, receive)


async def _transcode(verb: str, path: str, body: bytes = b"", query: bytes = b"") -> Any:
    match = RICH_TABLE.find(path)[verb]
    return await Transcoder(match.binding).message(_request(path, body, query), match.values)


@in_loop
async def test_a_body_that_is_one_field_leaves_the_others_to_path_and_query() -> None:
    message = await _transcode(
        "POST", "/w/7/x", b'{"oneString":"s"}', b"oneBool=true&manyInt32=1&manyInt32=2&time=2026-01-31T09:30:00Z"
    )
    wanted = Kinds(one_bool=True, many_int32=[1, 2])
    wanted.inner.one_int64, wanted.inner.one_string = 7, "s"
    wanted.time.FromJsonString("2026-01-31T09:30:00Z")
    assert message == wanted


@in_loop
async def test_nested_parameters_of_every_kind() -> None:
    query = (
        b"inner.inner.oneDouble=1e3&inner.colours=GREEN&duration=1.5s&oneBytes=AAE%3D&oneUint64=18446744073709551615"
    )
    message = await _transcode("GET", "/v/fixed", query=query)
    wanted = Kinds(one_bytes=b"\0\1", one_uint64=2**64 - 1)
    wanted.inner.inner.one_double = 1000
    wanted.inner.colours.append(1)
    wanted.duration.FromMilliseconds(1500)
    assert message == wanted


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (b"values=1", "values"),
        (b"byString.a=1", "byString.a"),
        (b"time.seconds=1", "time.seconds"),
        (b"inner=1", "inner"),
        (b"inner.nope=1", "inner.nope"),
        (b"oneDouble=nan", "oneDouble"),
        (b"oneBool=1", "oneBool"),
        (b"colour=PINK", "colour"),
        (b"left=a&right.left=b", "right"),
    ],
)
@in_loop
async def test_parameters_that_no_query_can_carry(query: bytes, field: str) -> None:
    with pytest.raises(InvalidFieldsError) as caught:
        await _transcode("GET", "/v/fixed", query=query)
    assert [each.field for each in caught.value.violations] == [field]


@in_loop
async def test_a_path_value_cannot_enter_a_body_that_is_no_object() -> None:
    with pytest.raises(ValueError, match="inner"):
        await _transcode("POST", "/w/7/x", b"[]")


@in_loop
async def test_a_body_is_refused_where_none_is_taken() -> None:
    with pytest.raises(Problem):
        await _transcode("GET", "/v/a", b"{}x")


UNFIT: list[tuple[HttpRule, bool, bool, str]] = [
    (HttpRule(get="/x/{nope}"), False, False, "no field nope"),
    (HttpRule(get="/x/{inner}"), False, False, "not a single value"),
    (HttpRule(get="/x/{many_int32}"), False, False, "not a single value"),
    (HttpRule(get="/x/{values.one_string}"), False, False, "no field values.one_string"),
    (HttpRule(get="/x/{one_string=a/*}"), False, False, "unsupported path template"),
    (HttpRule(get="/x/*"), False, False, "unsupported path template"),
    (HttpRule(get="x"), False, False, "unsupported path template"),
    (HttpRule(post="/x", body="nope"), False, False, "no field nope"),
    (HttpRule(get="/x", response_body="nope"), False, False, "no field nope"),
    (HttpRule(), False, False, "needs get, put, post, delete or patch"),
    (HttpRule(post="/x", body="one_string"), True, False, "needs a bytes field"),
    (HttpRule(post="/x", body="*"), True, False, "needs a bytes field"),
    (HttpRule(post="/x", body="*"), True, True, "bidirectional"),
]


@pytest.mark.parametrize(("rule", "uploads", "streams", "complaint"), UNFIT)
def test_a_rule_that_cannot_work_is_refused_at_start(
    rule: HttpRule, uploads: bool, streams: bool, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        routes.derive([service_of({"Do": rule}, uploads, streams)])


def test_two_methods_cannot_share_a_route() -> None:
    rules = {"One": HttpRule(get="/x/{one_string}"), "Two": HttpRule(get="/x/{one_int64}")}
    with pytest.raises(ValueError, match="more than one method"):
        routes.derive([service_of(rules)])


def test_a_streamed_message_needs_a_payload_and_a_cursor() -> None:
    async def scenario() -> None:
        table = routes.derive([service_of({"Watch": HttpRule(get="/x")}, streams=True)])
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            StreamEndpoint(table.bindings[0], channel, asyncio.Event())

    with pytest.raises(ValueError, match="one payload message and a cursor"):
        asyncio.run(scenario())


def test_a_template_takes_fixed_text_literally() -> None:
    template = parse_template("/a.b/{x}")
    assert template.match("/a.b/1") == ("1",)
    assert template.match("/aXb/1") is None
