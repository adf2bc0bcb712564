"""Entity tags of resources: what the headers become, and what comes back."""

from typing import Any

import grpc
import pytest
from gateway_fakes import Context, answering, control_plane, gateway, in_loop, refuse, served

from towline.v1 import workflow_pb2, workflow_service_pb2
from towline_gateway import etags

WORKFLOW = workflow_pb2.Workflow(id="w1", etag="abc")


@pytest.mark.parametrize(
    ("header", "tag"),
    [('"a"', "a"), (' "a" ', "a"), ('W/"a"', 'W/"a"'), ("a", None), ('"a", "b"', None), ('"a', None), ("", None)],
)
def test_an_if_match_header_names_one_tag(header: str, tag: str | None) -> None:
    assert etags.strong(header) == tag


@pytest.mark.parametrize(
    ("header", "expected"),
    [('"abc"', True), ('W/"abc"', True), ('"x", W/"abc"', True), ("*", True), ("abc", False), ('"ab"', False)],
)
@in_loop
async def test_a_get_that_names_the_tag_is_304(header: str, expected: bool) -> None:
    async with gateway() as (fake, client):
        fake.on["GetWorkflow"] = answering(workflow_service_pb2.GetWorkflowResponse(workflow=WORKFLOW))
        answer = await client.get("/api/workflows/w1", headers={"If-None-Match": header})
        assert answer.status_code == (304 if expected else 200)
        assert answer.headers["etag"] == '"abc"'
        assert answer.headers["cache-control"] == "private, no-cache"
        assert bool(answer.content) is not expected


@in_loop
async def test_a_304_is_one_on_the_wire_too() -> None:
    async with control_plane() as fake, served(fake.address) as (_, client):
        fake.on["GetWorkflow"] = answering(workflow_service_pb2.GetWorkflowResponse(workflow=WORKFLOW))
        for _ in range(2):
            assert (await client.get("/api/workflows/w1", headers={"If-None-Match": '"abc"'})).status_code == 304


@in_loop
async def test_if_match_becomes_the_etag_of_the_request() -> None:
    async with gateway() as (fake, client):
        for verb, path in (
            ("PUT", "/api/workflows/w1"),
            ("DELETE", "/api/workflows/w1"),
            ("POST", "/api/workflows/w1/versions"),
            ("PUT", "/api/workflows/w1/versions/v1/pin"),
        ):
            await client.request(verb, path, headers={"If-Match": '"abc"'})
            assert fake.calls[-1].request.etag == "abc", path
        await client.put("/api/workflows/w1", headers={"If-Match": "*"})
        assert fake.calls[-1].request.etag == ""


@in_loop
async def test_tags_that_contradict_or_are_none_are_refused() -> None:
    async with gateway() as (fake, client):
        clash = await client.put("/api/workflows/w1", json={"etag": "b"}, headers={"If-Match": '"a"'})
        assert (clash.status_code, clash.json()["error"]["details"][0]["field"]) == (400, "etag")
        malformed = await client.delete("/api/workflows/w1", headers={"If-Match": "a"})
        assert (malformed.status_code, malformed.json()["error"]["details"][0]["field"]) == (400, "If-Match")
        assert fake.calls == []


@in_loop
async def test_a_change_answers_the_new_tag_and_a_mismatch_is_412() -> None:
    async with gateway() as (fake, client):
        fake.on["UpdateWorkflow"] = answering(workflow_service_pb2.UpdateWorkflowResponse(workflow=WORKFLOW))
        changed = await client.put("/api/workflows/w1", headers={"If-None-Match": '"abc"'})
        assert (changed.status_code, changed.headers["etag"]) == (200, '"abc"')

        async def mismatch(request: Any, context: Context) -> None:
            await refuse(context, grpc.StatusCode.ABORTED, "ETAG_MISMATCH")

        fake.on["UpdateWorkflow"] = mismatch
        refused = await client.put("/api/workflows/w1", headers={"If-Match": '"old"'})
        assert refused.status_code == 412
        assert (refused.json()["error"]["code"], refused.json()["error"]["status"]) == (412, "ABORTED")
