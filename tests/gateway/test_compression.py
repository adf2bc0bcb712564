"""gzip: what is compressed, what never is, and what becomes of tags."""

import gzip
from typing import Any

import pytest
from gateway_fakes import answering, control_plane, gateway, in_loop, served, streaming

from towline.v1 import auth_service_pb2, run_pb2, run_service_pb2, workflow_pb2, workflow_service_pb2
from towline_gateway.compression import takes_gzip

GZIP = {"Accept-Encoding": "gzip"}
LARGE = workflow_pb2.Workflow(id="w1", etag="abc", description="x" * 5_000)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0, *", False),
        ("gzip; q=0.0", False),
        ("br", False),
        ("", False),
        ("identity", False),
    ],
)
def test_who_takes_gzip(header: str, expected: bool) -> None:
    assert takes_gzip(header) is expected


@in_loop
async def test_a_large_answer_is_compressed_for_who_takes_it() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        fake.on["GetWorkflow"] = answering(workflow_service_pb2.GetWorkflowResponse(workflow=LARGE))
        plain = await client.get("/api/workflows/w1", headers={"Accept-Encoding": "identity"})
        packed = await client.get("/api/workflows/w1", headers=GZIP)
        assert packed.json() == plain.json()
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < 500 < int(plain.headers["content-length"])
        assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
        head = await client.head("/api/workflows/w1", headers=GZIP)
        assert head.headers["content-length"] == packed.headers["content-length"]
        assert (await client.get("/openapi.json", headers=GZIP)).headers["content-encoding"] == "gzip"


@in_loop
async def test_the_tag_of_a_compressed_answer_means_the_same() -> None:
    async with gateway() as (fake, client):
        fake.on["GetWorkflow"] = answering(workflow_service_pb2.GetWorkflowResponse(workflow=LARGE))
        tag = (await client.get("/api/workflows/w1", headers=GZIP)).headers["etag"]
        assert tag == '"abc-gzip"'
        assert (await client.get("/api/workflows/w1", headers={**GZIP, "If-None-Match": tag})).status_code == 304
        await client.put("/api/workflows/w1", headers={"If-Match": tag})
        assert fake.calls[-1].request.etag == "abc"


@in_loop
async def test_small_answers_errors_and_answers_to_posts_are_not_compressed() -> None:
    async with gateway() as (fake, client):
        token = auth_service_pb2.LoginResponse(access_token="t" * 5_000)
        fake.on["Login"] = answering(token)
        for answer in (
            await client.get("/api/runs", headers=GZIP),
            await client.get("/api/nothing", headers=GZIP),
            await client.post("/api/auth/login", headers=GZIP),
        ):
            assert "content-encoding" not in answer.headers
        assert len(answer.content) > 5_000


@in_loop
async def test_streams_are_not_compressed() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        line = run_pb2.LogLine(text="x" * 5_000)
        fake.on["TailLogs"] = streaming(run_service_pb2.TailLogsResponse(line=line, cursor="c"))
        answer = await client.get("/api/runs/r1/logs", headers=GZIP)
        assert "content-encoding" not in answer.headers
        assert "x" * 5_000 in answer.text


@in_loop
async def test_very_large_answers_are_compressed_beside_the_loop() -> None:
    async with gateway() as (fake, client):
        large = workflow_pb2.Workflow(description="xyz" * 100_000)
        fake.on["GetWorkflow"] = answering(workflow_service_pb2.GetWorkflowResponse(workflow=large))
        async with client.stream("GET", "/api/workflows/w1", headers=GZIP) as answer:
            raw: Any = b"".join([piece async for piece in answer.aiter_raw()])
        assert b"xyz" * 100_000 in gzip.decompress(raw)
