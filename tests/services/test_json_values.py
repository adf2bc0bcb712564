"""Free JSON at the door, and back again."""

import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from towline.v1.run_service_pb2 import GetRunResponse
from towline.v1.workflow_pb2 import Condition, Dag, Edge, Node, RetryConfig
from towline_controlplane.errors import InvalidArgument, InvalidDag
from towline_controlplane.json_values import MAX_OUTPUT_DEPTH, check, parse, to_text
from towline_controlplane.services.dag_documents import dag_document, dag_message
from towline_controlplane.services.struct_values import plain, wire, wire_text
from towline_dag.json_bounds import LARGEST_INTEGER, MAX_DEPTH

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
    | st.floats(-1e15, 1e15, allow_nan=False).filter(lambda number: not number.is_integer())
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int, kind: type = dict) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


@given(JSON)
def test_what_is_accepted_comes_back_as_it_was(value: Any) -> None:
    check(value, "input")
    arrived = Value.FromString(wire(value).SerializeToString())
    assert plain(arrived) == value
    assert wire_text(to_text(value)) == arrived


@given(JSON)
def test_what_is_accepted_can_be_printed_by_others(value: Any) -> None:
    assert json.loads(json_format.MessageToJson(wire(value))) == value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (math.nan, "input"),
        ({"items": [0, 1, 2, {"price": math.inf}]}, "input.items[3].price"),
        ({"n": LARGEST_INTEGER + 1}, "input.n"),
        ({"n": -LARGEST_INTEGER - 1}, "input.n"),
        ({"n": 1e300}, "input.n"),
        (["a\0"], "input[0]"),
        ({"a\0b": 1}, "input.a\\x00b"),
        (["\ud800"], "input[0]"),
        (nested(MAX_DEPTH + 1, list), "input" + "[0]" * MAX_DEPTH),
        (nested(MAX_DEPTH + 1), "input" + ".a" * MAX_DEPTH),
        ({"when": object()}, "input.when"),
    ],
)
def test_what_cannot_be_kept_is_named(value: Any, place: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(value, "input")
    assert [violation.field for violation in caught.value.violations] == [place]


def test_a_long_list_of_wrong_places_is_cut() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check([math.nan] * 1_000, "input")
    assert len(caught.value.violations) == 20


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"NaN", b"1e999", b"[" * 100_000, b'"\\ud800"', b"1" * 5_000])
def test_a_text_that_is_no_safe_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse(text, "output")


def test_a_text_is_bounded() -> None:
    assert parse(b'"12345678"', "output", max_bytes=10) == "12345678"
    with pytest.raises(InvalidArgument):
        parse(b'"123456789"', "output", max_bytes=10)


@pytest.mark.parametrize("kind", [dict, list])
def test_the_deepest_output_fits_into_the_output_of_its_run(kind: type) -> None:
    message = GetRunResponse()
    message.run.output.CopyFrom(wire({"node": nested(MAX_OUTPUT_DEPTH, kind)}))
    assert GetRunResponse.FromString(message.SerializeToString()) == message


NODES = st.builds(
    Node,
    id=TEXT,
    type=TEXT,
    plugin_id=TEXT,
    plugin_version=TEXT,
    config=st.none() | st.dictionaries(TEXT, JSON, max_size=3).map(lambda value: wire(value).struct_value),
    retry_config=st.none()
    | st.builds(
        RetryConfig,
        max_attempts=st.integers(-5, 200),
        backoff_ms=st.none() | st.integers(0, 2**40),
        backoff_multiplier=st.floats(0, 100),
        max_backoff_ms=st.integers(0, 2**40),
        max_lost=st.none() | st.integers(0, 9),
    ),
    join=st.sampled_from(Node.Join.values()),
    side_effects=st.sampled_from(Node.SideEffects.values()),
    timeout_ms=st.integers(0, 2**40),
    memory_limit_mb=st.integers(0, 2**20),
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    display_name=TEXT,
)
EDGES = st.builds(
    Edge,
    source=TEXT,
    target=TEXT,
    condition=st.none() | st.builds(Condition, type=st.sampled_from(Condition.Type.values()), expression=TEXT),
)
DAGS = st.builds(Dag, nodes=st.lists(NODES, max_size=3), edges=st.lists(EDGES, max_size=3))


@given(DAGS)
def test_a_dag_comes_back_as_it_was(dag: Dag) -> None:
    assert dag_message(to_text(dag_document(dag))) == dag


@given(DAGS)
def test_a_document_is_the_json_of_the_contract(dag: Dag) -> None:
    assert json_format.ParseDict(dag_document(dag), Dag()) == dag


def test_a_document_holds_what_was_set_under_its_public_names() -> None:
    document = {
        "nodes": [
            {
                "id": "node-1",
                "type": "TEXT_TRANSFORM",
                "pluginVersion": "1.0.0",
                "config": {"transform": "uppercase"},
                "retryConfig": {"maxAttempts": 3, "backoffMs": 0, "backoffMultiplier": 2.0},
                "timeoutMs": 5000,
            }
        ],
        "edges": [{"from": "node-1", "to": "node-2", "condition": {"type": "ALWAYS"}}],
    }
    assert dag_document(json_format.ParseDict(document, Dag())) == document


def test_a_dag_with_a_value_that_json_has_not_names_its_place() -> None:
    config = Struct()
    config.fields["headers"].list_value.values.add(number_value=math.inf)
    dag = Dag(nodes=[Node(id="a", config=config), Node(id="b", retry_config=RetryConfig(backoff_multiplier=math.nan))])
    with pytest.raises(InvalidDag) as caught:
        dag_document(dag)
    places = [violation.field for violation in caught.value.violations]
    assert places == ["dag.nodes[0].config.headers[0]", "dag.nodes[1].retryConfig.backoffMultiplier"]
