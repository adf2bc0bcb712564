"""What is said of a document offline is what the control plane says of it."""

from pathlib import Path
from typing import Any

import pytest
from service_rig import DAG, Refused, Rig, serve

from towline_sdk.documents import Json
from towline_sdk.validation import examine

NODE: dict[str, Any] = {"id": "a", "type": "DELAY", "config": {"seconds": 0}}


def _node(**changes: Any) -> dict[str, Any]:
    return {"dag": {"nodes": [{**NODE, **changes}], "edges": []}}


# Documents that the wire can carry, so that both sides see the same.
DOCUMENTS: list[dict[str, Any]] = [
    {"dag": dict(DAG)},
    {"dag": dict(DAG), "name": ""},
    {"dag": dict(DAG), "description": "x" * 4_001},
    {"dag": {"nodes": [], "edges": []}},
    {"dag": {"nodes": [NODE, NODE], "edges": []}},
    _node(id="1st"),
    _node(config={}),
    _node(config={"seconds": -1}),
    _node(config={"seconds": "${{ nodes.b.output.n }}"}),
    _node(config={"seconds": "${{ 1 + }}"}),
    _node(config={"seconds": 0, "more": 1}),
    _node(retryConfig={"maxAttempts": 101}),
    _node(weight=1_001, labels={"": "x"}),
    _node(minSandbox="L4", network="NONE", fetchArtifacts=True),
    {**_node(), "output": {"n": "${{ nodes.b.output }}"}},
    {**_node(), "timeoutMs": -1, "concurrency": {"key": "nodes.a.state", "limit": 5_000}},
    {**_node(), "inputSchema": {"type": "no"}},
    {**_node(), "inputSchema": {"uniqueItems": True}},
    {"dag": {"nodes": [NODE, {**NODE, "id": "b"}], "edges": [{"from": "a", "to": "b"}, {"from": "b", "to": "a"}]}},
    {"dag": {"nodes": [NODE], "edges": [{"from": "a", "to": "nobody"}]}},
    {"dag": {"nodes": [NODE, {**NODE, "id": "b"}], "edges": [{"from": "a", "to": "b", "condition": {
        "type": "EXPRESSION", "expression": "nodes.a.output.n >"}}]}},
]  # fmt: skip


def test_both_sides_name_the_same_places_with_the_same_words(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        for document in DOCUMENTS:
            whole = {"name": "w", **document}
            said: dict[str, str] = {}
            try:
                await user.call("WorkflowService/CreateWorkflow", whole_request(whole))
            except Refused as refused:
                said = refused.violations
            assert {each.field: each.message for each in examine(whole).wrong} == said, document

    serve(tmp_path, scenario)


def whole_request(document: dict[str, Any]) -> Any:
    from google.protobuf.json_format import ParseDict

    from towline.v1.workflow_service_pb2 import CreateWorkflowRequest

    return ParseDict(document, CreateWorkflowRequest())


# Documents that never reach the wire, and the places that are named.
MALFORMED: list[tuple[Json, set[str]]] = [
    ([], {""}),
    ({}, {"nodes"}),
    ({"dag": []}, {"dag", "dag.nodes"}),
    ({"nodes": [1], "edges": {}}, {"nodes[0]", "edges"}),
    ({"nodes": [{"id": "a", "type": "DELAY", "confg": {}}]}, {"nodes[0].confg"}),
    ({"nodes": [{"id": "a", "type": "DELAY", "join": "SOME"}]}, {"nodes[0].join"}),
    ({"name": 1, "dag": {"nodes": []}}, {"name"}),
    ({"dag": {"nodes": [{**NODE, "timeoutMs": "soon"}], "edges": [{"from": "a", "to": "b"}]}},
     {"dag.nodes[0].timeoutMs", "dag.edges[0].to"}),
]  # fmt: skip


@pytest.mark.parametrize(("document", "places"), MALFORMED, ids=[str(each)[:50] for each, _ in MALFORMED])
def test_what_cannot_be_sent_is_named_by_its_place(document: Json, places: set[str]) -> None:
    assert {each.field for each in examine(document).wrong} >= places


def test_plugins_that_only_an_installation_knows_are_listed() -> None:
    nodes: list[Json] = [
        NODE,
        {"id": "b", "type": "mine"},
        {"id": "c", "type": "mine"},
        {"id": "d", "pluginId": "p"},
    ]
    found = examine({"nodes": nodes, "edges": []})
    assert (found.wrong, found.plugins) == ((), ("mine", "p"))
