"""Bad input is refused in plain words that name the field, over REST and gRPC alike, and nothing is lost by it."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from processes import Installation, Rest, installed

from towline.v1 import workflow_service_pb2
from towline.v1.workflow_service_pb2_grpc import WorkflowServiceStub


def node(node_id: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": node_id, "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase"}, **more}


def edge(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"from": source, "to": target, **more}


DAGS: list[tuple[dict[str, Any], str, str]] = [
    ({"nodes": []}, "dag.nodes", ""),
    ({"nodes": [node("a"), node("a")]}, "dag.nodes[1].id", "dag.nodes[0]"),
    ({"nodes": [node("a")], "edges": [edge("a", "a")]}, "dag.edges[0]", "a"),
    ({"nodes": [node("a")], "edges": [edge("a", "b")]}, "dag.edges[0].to", "b"),
    (
        {"nodes": [node("a"), node("b"), node("c")], "edges": [edge("a", "b"), edge("b", "c"), edge("c", "a")]},
        "dag",
        "a → b → c → a",
    ),
    ({"nodes": [{"id": "a", "type": "NO_SUCH"}]}, "dag.nodes[0].type", "built-in"),
    ({"nodes": [{"id": "a", "type": "TEXT_TRANSFORM", "config": {"transform": "shout"}}]}, "dag.nodes[0].config", ""),
    ({"nodes": [node("a", retryConfig={"maxAttempts": 1000})]}, "dag.nodes[0].retryConfig.maxAttempts", ""),
    (
        {
            "nodes": [node("a"), node("b")],
            "edges": [edge("a", "b", condition={"type": "EXPRESSION", "expression": "nodes.a.output."})],
        },
        "dag.edges[0].condition.expression",
        "1:",
    ),
]


def test_dags_that_cannot_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            for dag, field, words in DAGS:
                over_rest = [(d["field"], d["message"]) for d in refusal(rest, dag)]
                over_grpc = await violations(installation, rest.token, dag)
                assert over_rest == over_grpc
                found = [message for path, message in over_rest if path.startswith(field)]
                assert any(words in message for message in found), (field, words, over_rest)
            assert rest.get("/workflows")["workflows"] == []

    asyncio.run(scenario())


def refusal(rest: Rest, dag: dict[str, Any]) -> list[dict[str, str]]:
    error = rest.post("/workflows", {"name": "bad", "dag": dag})["error"]
    assert (error["code"], error["status"], error["reason"]) == (400, "INVALID_ARGUMENT", "INVALID_DAG")
    assert error["requestId"]
    return error["details"]


async def violations(installation: Installation, token: str, dag: dict[str, Any]) -> list[tuple[str, str]]:
    request = workflow_service_pb2.CreateWorkflowRequest(name="bad")
    json_format.ParseDict(dag, request.dag)
    async with grpc.aio.insecure_channel(installation.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await WorkflowServiceStub(channel).CreateWorkflow(request, metadata=[("authorization", f"Bearer {token}")])
    packed = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    details = error_details_pb2.BadRequest()
    assert any(detail.Unpack(details) for detail in status_pb2.Status.FromString(packed).details)
    return [(violation.field, violation.description) for violation in details.field_violations]


REQUESTS: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/workflows", {"nmae": "x"}, 400, "nmae"),
    ("POST", "/workflows", {"name": "x", "dag": {"nodes": [{"id": 7}]}}, 400, "dag.nodes[0].id"),
    ("POST", "/auth/register", {"email": "nobody", "password": "long enough", "name": "N"}, 400, "email"),
    ("POST", "/auth/register", {"email": "a@b.c", "password": "x" * 73, "name": "N"}, 400, "password"),
    ("GET", "/workflows?pageSize=many", None, 400, "pageSize"),
    ("GET", "/workflows?pageToken=nonsense", None, 400, "pageToken"),
    ("GET", "/runs?state=ASLEEP", None, 400, "state"),
    ("GET", "/runs/none", None, 404, ""),
    ("GET", "/nowhere", None, 404, ""),
    ("DELETE", "/runs", None, 405, ""),
]


def test_requests_that_cannot_be_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            for method, path, body, code, field in REQUESTS:
                error = rest.call(method, path, body, {})["error"]
                assert error["code"] == code, (method, path, error)
                assert not field or field in [detail["field"] for detail in error["details"]], (path, error)
                assert "Traceback" not in str(error)

    asyncio.run(scenario())
