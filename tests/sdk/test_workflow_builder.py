"""Workflows written as plain objects become the document of the API, and are judged before anything is sent."""

from dataclasses import fields
from typing import Any, cast

import pytest
from google.protobuf.descriptor import Descriptor

from towline.v1 import workflow_pb2
from towline_sdk import workflow
from towline_sdk.documents import WORKFLOW_FIELDS, parse_workflow
from towline_sdk.errors import InvalidDocumentError
from towline_sdk.workflow import ALWAYS, Concurrency, Edge, Node, NodeLimits, RetryConfig, Workflow, cel, when

# In snake_case as both sides have it.
KINDS: list[tuple[type[Any], Any]] = [
    (workflow.Node, workflow_pb2.Node),
    (workflow.RetryConfig, workflow_pb2.RetryConfig),
    (workflow.NodeLimits, workflow_pb2.NodeLimits),
    (workflow.Edge, workflow_pb2.Edge),
    (workflow.Condition, workflow_pb2.Condition),
    (workflow.Concurrency, workflow_pb2.Concurrency),
]
GREETING = Workflow(
    name="greeting",
    nodes=[
        Node(
            "shout",
            "TEXT_TRANSFORM",
            {"transform": "uppercase", "text": cel("input.name")},
            retry_config=RetryConfig(max_attempts=5, retry_on=["TRANSIENT", "TIMEOUT"]),
            limits=NodeLimits(cpu_seconds=2),
            labels={"zone": "eu"},
        ),
        Node("trim", "TEXT_TRANSFORM", {"transform": "trim"}),
        Node("tidy", "DELAY", {"seconds": 0}),
    ],
    edges=[
        Edge("shout", "trim", when("nodes.shout.output.text != ''")),
        Edge("trim", "tidy", ALWAYS),
    ],
    timeout_ms=60_000,
    concurrency=Concurrency(2, key="input.name"),
)


@pytest.mark.parametrize(("written", "message"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
def test_every_field_of_the_contract_can_be_written(written: type[Any], message: Any) -> None:
    descriptor = cast("Descriptor", message.DESCRIPTOR)
    assert {each.name for each in fields(written)} == {field.name for field in descriptor.fields}


def test_every_field_of_a_workflow_file_can_be_written() -> None:
    assert {*Workflow(name="w", nodes=[], input_schema={}, output={}, timeout_ms=1, concurrency=Concurrency(1),
                      description="").to_json()} == {*WORKFLOW_FIELDS}  # fmt: skip


def test_objects_become_the_document_of_the_api() -> None:
    assert GREETING.to_json() == {
        "name": "greeting",
        "timeoutMs": 60_000,
        "concurrency": {"limit": 2, "key": "input.name"},
        "dag": {
            "nodes": [
                {
                    "id": "shout",
                    "type": "TEXT_TRANSFORM",
                    "config": {"transform": "uppercase", "text": "${{ input.name }}"},
                    "retryConfig": {"maxAttempts": 5, "retryOn": ["TRANSIENT", "TIMEOUT"]},
                    "limits": {"cpuSeconds": 2},
                    "labels": {"zone": "eu"},
                },
                {"id": "trim", "type": "TEXT_TRANSFORM", "config": {"transform": "trim"}},
                {"id": "tidy", "type": "DELAY", "config": {"seconds": 0}},
            ],
            "edges": [
                {
                    "from": "shout",
                    "to": "trim",
                    "condition": {"type": "EXPRESSION", "expression": "nodes.shout.output.text != ''"},
                },
                {"from": "trim", "to": "tidy", "condition": {"type": "ALWAYS"}},
            ],
        },
    }


def test_a_right_workflow_is_what_create_takes() -> None:
    assert GREETING.document() == parse_workflow(GREETING.to_json())


def test_a_wrong_one_is_refused_with_every_place() -> None:
    wrong = Workflow(
        name="w",
        nodes=[Node("a", "DELAY", {"secnds": 1}), Node("b", "DELAY", {"seconds": cel("nodes.c.output.n")})],
        edges=[Edge("a", "b"), Edge("b", "a")],
    )
    with pytest.raises(InvalidDocumentError) as refused:
        wrong.document()
    assert {each.field for each in refused.value.violations} == {
        "dag.edges[1]",
        "dag.nodes[0].config.seconds",
        "dag.nodes[0].config.secnds",
        "dag.nodes[1].config",
    }
