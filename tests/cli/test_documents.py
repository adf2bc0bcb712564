import json
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from towline.v1.plugin_pb2 import PluginVersion
from towline.v1.run_pb2 import Run
from towline_sdk.documents import parse_json, parse_value, parse_workflow, to_json
from towline_sdk.errors import InvalidDocumentError

NODE: dict[str, Any] = {
    "id": "node-1",
    "type": "TEXT_TRANSFORM",
    "pluginId": "p1",
    "pluginVersion": "1.0.0",
    "config": {"transform": "uppercase", "n": 3, "ratio": 0.5, "list": [1, {"a": None}]},
    "retryConfig": {"maxAttempts": 3, "backoffMs": 1000, "backoffMultiplier": 2},
}
EDGE: dict[str, Any] = {"from": "node-1", "to": "node-2", "condition": {"type": "ALWAYS"}}
# A wrong DAG, and the only place that is named.
WRONG_DAGS: list[tuple[Any, str, str]] = [
    ({"nodez": []}, "nodez", "did you mean nodes?"),
    ({"nodes": {}}, "nodes", "must be an array"),
    ({"nodes": [None]}, "nodes[0]", "must be an object"),
    ({"nodes": [{}, {"id": 1}]}, "nodes[1].id", "must be a string"),
    ({"nodes": [{"config": [1]}]}, "nodes[0].config", "must be an object"),
    ({"nodes": [{"config": {"a": [2**53]}}]}, "nodes[0].config.a[0]", "beyond ±(2^53-1)"),
    ({"nodes": [{"config": {"a": float("inf")}}]}, "nodes[0].config.a", "too large"),
    ({"nodes": [{"retryConfig": {"backoffMs": "x"}}]}, "nodes[0].retryConfig.backoffMs", "must be an integer"),
    ({"nodes": [{"retryConfig": {"backofMs": 1}}]}, "nodes[0].retryConfig.backofMs", "did you mean backoffMs?"),
    ({"nodes": [{"timeoutMs": True}]}, "nodes[0].timeoutMs", "must be an integer"),
    ({"nodes": [{"join": "SOME"}]}, "nodes[0].join", "has no value SOME"),
    ({"edges": [{"condition": {"type": "NEVER"}}]}, "edges[0].condition.type", "has no value NEVER"),
]


def test_dag_survives_the_wire_as_written() -> None:
    document = parse_workflow({"name": "w", "dag": {"nodes": [NODE], "edges": [EDGE]}})

    dag: Any = to_json(document.dag)

    assert (document.name, document.description) == ("w", "")
    assert dag == {"nodes": [NODE], "edges": [EDGE]}
    assert '"backoffMs": 1000,' in json.dumps(dag)


@pytest.mark.parametrize(("dag", "field", "words"), WRONG_DAGS, ids=[field for _, field, _ in WRONG_DAGS])
def test_wrong_place_is_named_as_the_user_wrote_it(dag: Any, field: str, words: str) -> None:
    with pytest.raises(InvalidDocumentError) as bare:
        parse_workflow(dag)
    with pytest.raises(InvalidDocumentError) as wrapped:
        parse_workflow({"dag": dag})

    (violation,) = bare.value.violations
    assert (violation.field, words in violation.message) == (field, True)
    assert [violation.field for violation in wrapped.value.violations] == [f"dag.{field}"]


def test_all_wrong_places_are_named_at_once() -> None:
    with pytest.raises(InvalidDocumentError) as error:
        parse_workflow({"nodes": [{"id": 1}, {"type": 2}], "extra": 1})

    assert [violation.field for violation in error.value.violations] == ["extra", "nodes[0].id", "nodes[1].type"]


def test_fields_around_the_dag_are_checked() -> None:
    with pytest.raises(InvalidDocumentError) as error:
        parse_workflow({"nam": 1, "description": 2, "dag": {}})

    assert [violation.field for violation in error.value.violations] == ["description", "nam"]


@pytest.mark.parametrize("text", ["", "{", "[NaN]", "Infinity", "[1,]", "[" * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocumentError, match="--input is not JSON"):
        parse_json(text, "--input")


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "text", [], {}, {"b": [1, {"a": 2**53 - 1}]}])
def test_free_json_survives_the_wire(value: Any) -> None:
    run: Any = to_json(Run(input=parse_value(value, "input")))

    assert run["input"] == value
    assert json.dumps(run["input"]) == json.dumps(value)


def test_json_leaves_out_only_what_was_never_set() -> None:
    run = Run(id="r1", create_time=Timestamp(seconds=1), labels={"b": "2", "a": "1"})

    document = to_json(run)

    assert "state" not in document
    assert "output" not in document
    assert document["createTime"] == "1970-01-01T00:00:01Z"
    assert (document["priority"], document["cancelRequested"]) == (0, False)
    assert json.dumps(document["labels"]) == '{"a": "1", "b": "2"}'


@pytest.mark.parametrize(("number", "printed"), [(2**53 - 1, 2**53 - 1), (2**53 + 1, str(2**53 + 1))])
def test_wide_integer_is_a_number_unless_digits_would_be_lost(number: int, printed: int | str) -> None:
    assert to_json(PluginVersion(size_bytes=number))["sizeBytes"] == printed
