"""Plain calls over REST: what arrives at the control plane, and what comes back."""

import asyncio
import json
import uuid
from typing import Any

import grpc
import pytest
from gateway_fakes import Context, answering, control_plane, gateway, in_loop, refuse, served
from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1 import auth_service_pb2, run_pb2, run_service_pb2, workflow_pb2, workflow_service_pb2
from towline_gateway import bodies
from towline_gateway.problems import HTTP_CODES

DAG = {
    "nodes": [
        {"id": "a", "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase"}, "retryConfig": {"maxAttempts": 3}},
        {"id": "b", "type": "TEXT_TRANSFORM"},
    ],
    "edges": [{"from": "a", "to": "b", "condition": {"type": "ALWAYS"}}],
}


@in_loop
async def test_create_sends_the_body_and_answers_the_bare_resource() -> None:
    async with gateway() as (fake, client):
        workflow = workflow_pb2.Workflow(id="w1", name="n", current_version=1)
        fake.on["CreateWorkflow"] = answering(workflow_service_pb2.CreateWorkflowResponse(workflow=workflow))
        answer = await client.post("/api/workflows", json={"name": "n", "dag": DAG})
        assert answer.status_code == 201
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "id": "w1",
            "name": "n",
            "description": "",
            "ownerId": "",
            "currentVersion": 1,
            "pinnedVersionId": "",
            "etag": "",
        }
        sent = fake.call.request
        assert sent.dag.edges[0].source == "a"
        assert sent.dag.nodes[0].config["transform"] == "uppercase"
        assert sent.dag.edges[0].condition.type == workflow_pb2.Condition.ALWAYS


@in_loop
async def test_path_query_and_header_fill_the_request() -> None:
    async with gateway() as (fake, client):
        answer = await client.get("/api/runs?workflowId=w%2F1&state=RUNNING&pageSize=5&pageToken=")
        assert answer.status_code == 200
        assert answer.json() == {"runs": [], "nextPageToken": ""}
        wanted = run_service_pb2.ListRunsRequest(workflow_id="w/1", state=run_pb2.Run.RUNNING, page_size=5)
        assert fake.call.request == wanted


@in_loop
async def test_filters_are_typed_and_may_be_repeated() -> None:
    async with gateway() as (fake, client):
        query = "states=RUNNING&states=FAILED&createdAfter=2026-01-31T09:30:00Z&labels=a%3Db&orderBy=END_TIME_ASC"
        assert (await client.get(f"/api/runs?{query}")).status_code == 200
        wanted = run_service_pb2.ListRunsRequest(
            states=[run_pb2.Run.RUNNING, run_pb2.Run.FAILED],
            created_after=Timestamp(seconds=1_769_851_800),
            labels=["a=b"],
            order_by=run_service_pb2.ListRunsRequest.END_TIME_ASC,
        )
        assert fake.call.request == wanted
        for wrong in ("states=NOPE", "orderBy=name", "createdAfter=today", "orderBy=END_TIME_ASC&orderBy=END_TIME_ASC"):
            answer = await client.get(f"/api/runs?{wrong}")
            fields = [each["field"].partition("[")[0] for each in answer.json()["error"]["details"]]
            assert (answer.status_code, fields) == (400, [wrong.partition("=")[0]])


@in_loop
async def test_path_variables_keep_encoded_slashes_and_wide_text() -> None:
    async with gateway() as (fake, client):
        answer = await client.get("/api/runs/r%2F1/steps/fetch%5B3%5D%C3%A9")
        assert answer.status_code == 200
        assert fake.call.request == run_service_pb2.GetStepRequest(run_id="r/1", node_id="fetch[3]é")
        assert answer.json() == {}


@pytest.mark.parametrize("body", [b"", b"{}", b" \n"])
@in_loop
async def test_nothing_is_a_body_where_none_is_taken(body: bytes) -> None:
    async with gateway() as (fake, client):
        answer = await client.post("/api/runs/r1/cancel", content=body)
        assert answer.status_code == 200
        assert fake.call.request == run_service_pb2.CancelRunRequest(run_id="r1")


@in_loop
async def test_a_missing_body_is_an_empty_document() -> None:
    async with gateway() as (fake, client):
        answer = await client.post("/api/workflows/w1/execute")
        assert answer.status_code == 201
        assert fake.call.request == run_service_pb2.StartRunRequest(workflow_id="w1")


@in_loop
async def test_idempotency_key_becomes_the_request_id() -> None:
    async with gateway() as (fake, client):
        headers = {"Idempotency-Key": "once"}
        await client.post("/api/workflows/w1/execute", json={"input": {"n": 1}}, headers=headers)
        assert fake.call.request.request_id == "once"
        assert fake.call.request.input.struct_value["n"] == 1
        clash = await client.post("/api/workflows/w1/execute", json={"requestId": "other"}, headers=headers)
        assert clash.status_code == 400
        assert clash.json()["error"]["details"][0]["field"] == "requestId"


@in_loop
async def test_metadata_carries_credentials_request_id_address_and_deadline() -> None:
    async with gateway() as (fake, client):
        headers = {"Authorization": "Bearer t", "X-Request-Id": "abc-1", "X-Forwarded-For": "203.0.113.9"}
        answer = await client.get("/api/auth/me", headers=headers)
        assert answer.headers["x-request-id"] == "abc-1"
        metadata = fake.call.metadata
        assert metadata["authorization"] == "Bearer t"
        assert metadata["x-request-id"] == "abc-1"
        assert metadata["x-client-address"] == "192.0.2.7"
        assert 20 < fake.call.seconds_left < 40  # gRPC rounds deadlines up


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "line\x00"])
@in_loop
async def test_a_malformed_request_id_is_replaced(given: str) -> None:
    async with gateway() as (fake, client):
        answer = await client.get("/api/auth/me", headers={"X-Request-Id": given})
        request_id = answer.headers["x-request-id"]
        assert uuid.UUID(request_id)
        assert fake.call.metadata["x-request-id"] == request_id
        assert "authorization" not in fake.call.metadata


@in_loop
async def test_credentials_that_metadata_cannot_carry_are_refused_here() -> None:
    async with gateway() as (fake, client):
        answer = await client.get("/api/auth/me", headers=[(b"Authorization", b"Bearer \xff")])
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert fake.calls == []


@pytest.mark.parametrize(("trusted", "address"), [("", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")])
@in_loop
async def test_only_trusted_proxies_name_the_client(trusted: str, address: str) -> None:
    async with control_plane() as fake, served(fake.address, trusted) as (_, client):
        await client.get("/api/auth/me", headers={"X-Forwarded-For": "203.0.113.9"})
        assert fake.call.metadata["x-client-address"] == address


@in_loop
async def test_put_pins_and_delete_answers_an_empty_object() -> None:
    async with gateway() as (fake, client):
        assert (await client.put("/api/workflows/w1/versions/v2/pin")).status_code == 200
        assert fake.call.request == workflow_service_pb2.PinWorkflowVersionRequest(workflow_id="w1", version_id="v2")
        deleted = await client.delete("/api/workflows/w1")
        assert (deleted.status_code, deleted.content) == (200, b"{}")


@in_loop
async def test_optional_fields_keep_their_presence() -> None:
    async with gateway() as (fake, client):
        await client.put("/api/workflows/w1", json={"name": "", "description": None})
        assert fake.call.request.HasField("name")
        assert not fake.call.request.HasField("description")


@in_loop
async def test_login_is_no_creation() -> None:
    async with gateway() as (fake, client):
        fake.on["Login"] = answering(auth_service_pb2.LoginResponse(access_token="t", expires_in=60))
        answer = await client.post("/api/auth/login", json={"email": "a@b.c", "password": "p"})
        assert (answer.status_code, answer.json()["accessToken"], answer.json()["expiresIn"]) == (200, "t", 60)


@in_loop
async def test_head_answers_as_get_without_a_body() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        answer = await client.head("/api/runs")
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 0


@in_loop
async def test_answers_carry_security_headers_and_no_cors() -> None:
    async with gateway() as (_, client):
        headers = (await client.get("/api/runs", headers={"Origin": "http://elsewhere"})).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert not [name for name in headers if name.startswith("access-control-")]


ROUTE_REFUSALS = [
    ("GET", "/api/nothing", 404, "ROUTE_NOT_FOUND", None),
    ("GET", "/api/runs/", 404, "ROUTE_NOT_FOUND", None),
    ("GET", "/api/runs//steps", 404, "ROUTE_NOT_FOUND", None),
    ("GET", "/api/runs/%ff", 404, "ROUTE_NOT_FOUND", None),
    ("GET", "/towline.v1.AgentService/Pull", 404, "ROUTE_NOT_FOUND", None),
    ("DELETE", "/api/runs", 405, "METHOD_NOT_ALLOWED", "GET, HEAD"),
    ("PATCH", "/api/workflows/w1", 405, "METHOD_NOT_ALLOWED", "DELETE, GET, HEAD, PUT"),
    ("OPTIONS", "/api/workflows", 405, "METHOD_NOT_ALLOWED", "GET, HEAD, POST"),
    ("POST", "/docs", 405, "METHOD_NOT_ALLOWED", "GET, HEAD"),
    ("GET", "/api/auth/login", 405, "METHOD_NOT_ALLOWED", "POST"),
]


@pytest.mark.parametrize(("verb", "path", "code", "reason", "allow"), ROUTE_REFUSALS)
@in_loop
async def test_unknown_routes_and_methods(verb: str, path: str, code: int, reason: str, allow: str | None) -> None:
    async with gateway() as (fake, client):
        answer = await client.request(verb, path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["reason"]) == (code, code, reason)
        assert sorted((answer.headers.get("allow") or "").split(", ")) == sorted((allow or "").split(", "))
        assert error["requestId"] == answer.headers["x-request-id"]
        assert fake.calls == []


BODY_REFUSALS: list[tuple[bytes, dict[str, str], int, str, list[str]]] = [
    (b'{"a":', {"Content-Type": "application/json"}, 400, "INVALID_ARGUMENT", []),
    (b"\xff", {"Content-Type": "application/json"}, 400, "INVALID_ARGUMENT", []),
    (b"[" * 100_000, {"Content-Type": "application/json"}, 400, "INVALID_ARGUMENT", []),
    (b"[1" + b"0" * 5000 + b"]", {"Content-Type": "application/json"}, 400, "INVALID_ARGUMENT", []),
    (b"[]", {"Content-Type": "application/json"}, 400, "INVALID_ARGUMENT", [""]),
    (b'{"x":1}', {"Content-Type": "application/json"}, 400, "INVALID_ARGUMENT", ["x"]),
    (b'{"\\ud800":1}', {"Content-Type": "application/json"}, 400, "INVALID_ARGUMENT", ['["?"]']),
    (b'{"name":"n"}', {}, 415, "UNSUPPORTED_MEDIA_TYPE", []),
    (b'{"name":"n"}', {"Content-Type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE", []),
    (b'{"name":"n"}', {"Content-Type": "application/json; charset=latin-1"}, 415, "UNSUPPORTED_MEDIA_TYPE", []),
    (b"x", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415, "UNSUPPORTED_MEDIA_TYPE", []),
    (b" " * (bodies.MAX_DOCUMENT_BYTES + 1), {"Content-Type": "application/json"}, 413, "LIMIT_EXCEEDED", []),
]


@pytest.mark.parametrize(("body", "headers", "code", "reason", "fields"), BODY_REFUSALS)
@in_loop
async def test_bodies_that_are_refused(
    body: bytes, headers: dict[str, str], code: int, reason: str, fields: list[str]
) -> None:
    async with gateway() as (fake, client):
        answer = await client.post("/api/workflows", content=body, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["reason"]) == (code, reason)
        assert [each["field"] for each in error["details"]] == fields
        assert fake.calls == []


@in_loop
async def test_charset_utf8_is_accepted() -> None:
    async with gateway() as (_, client):
        headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
        assert (await client.post("/api/workflows", content="{}", headers=headers)).status_code == 201


PARAMETER_REFUSALS: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("GET", "/api/runs?page_size=1", {}, ["page_size"]),
    ("GET", "/api/runs?pageSize=1&pageSize=2", {}, ["pageSize"]),
    ("GET", "/api/runs?pageSize=&state=NOPE&x=1", {}, ["x", "pageSize", "state"]),
    ("GET", "/api/runs?pageSize=99999999999", {}, ["pageSize"]),
    ("GET", "/api/runs?pageToken=%00", {}, ["pageToken"]),
    ("GET", "/api/runs/r1?runId=r2", {}, ["runId"]),
    ("GET", "/api/runs/r1/logs?follow=yes", {}, ["follow"]),
    ("GET", "/api/runs?" + "&".join(["pageSize=1"] * 101), {}, []),
    ("GET", "/api/runs?pageToken=%ff", {}, []),
    ("POST", "/api/workflows/w1/execute?priority=3", {"json": {}}, ["priority"]),
    ("POST", "/api/workflows/w1/execute", {"json": {"workflowId": "w2"}}, ["workflowId"]),
    ("POST", "/api/runs/r1/cancel", {"json": {"why": "x"}}, []),
    ("GET", "/api/runs/%00", {}, ["runId"]),
]


@pytest.mark.parametrize(("verb", "path", "arguments", "fields"), PARAMETER_REFUSALS)
@in_loop
async def test_parameters_that_are_refused(verb: str, path: str, arguments: dict[str, Any], fields: list[str]) -> None:
    async with gateway() as (fake, client):
        answer = await client.request(verb, path, **arguments)
        assert answer.status_code == 400
        assert [each["field"] for each in answer.json()["error"]["details"]] == fields
        assert fake.calls == []


@in_loop
async def test_a_field_that_the_path_gives_may_be_repeated_in_the_body() -> None:
    async with gateway() as (_, client):
        assert (await client.post("/api/workflows/w1/execute", json={"workflowId": "w1"})).status_code == 201


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
@in_loop
async def test_every_grpc_code_has_its_http_code(code: grpc.StatusCode) -> None:
    async with gateway() as (fake, client):

        async def answer(request: Any, context: Context) -> None:
            await refuse(context, code, "SOME_REASON", "Because.", (("dag.nodes[0].id", "is bad"),))

        fake.on["GetRun"] = answer
        response = await client.get("/api/runs/r1", headers={"X-Request-Id": "q"})
        assert response.status_code == HTTP_CODES[code]
        assert response.json() == {
            "error": {
                "code": HTTP_CODES[code],
                "status": code.name,
                "reason": "SOME_REASON",
                "message": "Because.",
                "details": [{"field": "dag.nodes[0].id", "message": "is bad"}],
                "requestId": "q",
            }
        }


@in_loop
async def test_limits_are_413_unless_a_repetition_may_pass() -> None:
    async with gateway() as (fake, client):

        async def too_large(request: Any, context: Context) -> None:
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")

        async def too_many(request: Any, context: Context) -> None:
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", retry_seconds=2.5)

        fake.on |= {"GetRun": too_large, "ListRuns": too_many}
        assert (await client.get("/api/runs/r1")).status_code == 413
        later = await client.get("/api/runs")
        assert (later.status_code, later.headers["retry-after"]) == (429, "3")


@in_loop
async def test_a_defect_of_the_control_plane_shows_nothing_of_it() -> None:
    async with gateway() as (fake, client):

        async def crash(request: Any, context: Context) -> None:
            raise RuntimeError("secret of the house")

        fake.on["GetRun"] = crash
        answer = await client.get("/api/runs/r1")
        assert answer.status_code == 500
        assert answer.json()["error"]["reason"] == "INTERNAL"
        assert "secret" not in answer.text


@in_loop
async def test_an_answer_that_json_cannot_hold_is_a_defect() -> None:
    async with gateway() as (fake, client):
        run = run_pb2.Run()
        run.input.number_value = float("nan")
        fake.on["GetRun"] = answering(run_service_pb2.GetRunResponse(run=run))
        answer = await client.get("/api/runs/r1")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (500, "INTERNAL")


@in_loop
async def test_a_control_plane_that_is_away_is_503_and_comes_back() -> None:
    async with control_plane() as fake:
        address = fake.address
    async with served(address) as (_, client):
        answer = await client.get("/api/runs")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["reason"] == "UNAVAILABLE"
        assert "127.0.0.1" not in answer.text
        async with control_plane(address):
            async with asyncio.timeout(30):
                while (await client.get("/api/runs")).status_code != 200:
                    pass


@in_loop
async def test_deep_free_json_passes_the_wire_both_ways() -> None:
    async with gateway() as (fake, client):

        async def echo(request: Any, context: Context) -> Any:
            version = workflow_pb2.WorkflowVersion(dag=request.dag)
            listing = workflow_service_pb2.ListWorkflowVersionsResponse(versions=[version])
            fake.on["ListWorkflowVersions"] = answering(listing)
            return workflow_service_pb2.CreateWorkflowVersionResponse(version=version)

        fake.on["CreateWorkflowVersion"] = echo
        config: Any = 7
        for _ in range(32):
            config = {"x": config}
        dag = {"nodes": [{"id": "a", "type": "T", "config": config}]}
        answer = await client.post("/api/workflows/w/versions", json={"dag": dag})
        assert answer.status_code == 201, answer.text
        listed = await client.get("/api/workflows/w/versions")
        assert json.loads(listed.content)["versions"][0]["dag"]["nodes"][0]["config"] == config
