"""Workflow files in JSON and YAML: what they say, and that every refusal points at the line."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_fakes import FakeControlPlane, Refusal, Terminal
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from towline_cli import json_source, yaml_source
from towline_cli.places import NotReadableError, Place, nearest

YAML = """\
name: greeting
description: no   # a string, as in YAML 1.2
dag:
  nodes:
    - id: shout
      type: TEXT_TRANSFORM
      config: &config {transform: uppercase, text: "${{ input.name }}"}
    - id: again
      type: TEXT_TRANSFORM
      config: *config
  edges:
    - {from: shout, to: again}
"""
DOCUMENT = {
    "name": "greeting",
    "description": "no",
    "dag": {
        "nodes": [
            {"id": name, "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase", "text": "${{ input.name }}"}}
            for name in ("shout", "again")
        ],
        "edges": [{"from": "shout", "to": "again"}],
    },
}
SCALARS: list[tuple[str, Any]] = [
    ("no", "no"), ("NO", "NO"), ("on", "on"), ("y", "y"), ("true", True), ("False", False), ("~", None), ("null", None),
    ("", None), ("''", ""), ("'true'", "true"), ("12", 12), ("-3", -3), ("0x1F", 31), ("0o17", 15), ("1_000", "1_000"),
    ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("!!str 12", "12"),
    ("1.2.3", "1.2.3"), ("|\n  two\n  lines", "two\nlines\n"),
]  # fmt: skip
# A text, what is wrong, and where.
UNREADABLE_YAML: list[tuple[str, str, Place]] = [
    ("a: 1\nb: 2\na: 3\n", "has a twice: here and at 1:1", Place(3, 1)),
    ("a: [1, 2\n", "is not YAML", Place(2, 1)),
    ("a: !!python/object/apply:os.system [x]\n", "tags are not taken", Place(1, 4)),
    ("a: !!int 1\n", "tags are not taken", Place(1, 4)),
    ("a: .nan\n", "not a JSON number", Place(1, 4)),
    ("? [a]\n: 1\n", "not a scalar", Place(1, 3)),
    ("a: *b\n", "has no anchor b", Place(1, 4)),
    ("a: &a [*a]\n", "has no anchor a", Place(1, 8)),
    ("a: 1\n---\nb: 2\n", "more than one document", Place(2, 1)),
    ("", "is empty", Place(1, 1)),
    ("[" * 100 + "]" * 100, "nested deeper than 64 levels", Place(1, 66)),
]
UNREADABLE_JSON: list[tuple[str, str, Place]] = [
    ('{\n "a": 1,\n "a": 2}', "has a twice: here and at 2:2", Place(3, 2)),
    ('{\n "a": }', "is not JSON: Expecting value", Place(2, 7)),
    ("[NaN]", "NaN is not a JSON number", Place(1, 1)),
    ("[" * 100_000, "is not JSON", Place(1, 1)),
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
)


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text for text, _ in SCALARS])
def test_words_mean_what_yaml_1_2_makes_of_them(text: str, value: Any) -> None:
    read, _ = yaml_source.read(f"a: {text}\n")
    assert read == {"a": value}
    assert isinstance(read, dict)
    assert type(read["a"]) is type(value)


@pytest.mark.parametrize(("text", "words", "place"), UNREADABLE_YAML, ids=[each[1] for each in UNREADABLE_YAML])
def test_yaml_that_hides_a_mistake_is_refused_where_it_is(text: str, words: str, place: Place) -> None:
    with pytest.raises(NotReadableError, match=words) as refused:
        yaml_source.read(text)
    assert refused.value.place == place


@pytest.mark.parametrize(("text", "words", "place"), UNREADABLE_JSON, ids=[each[1] for each in UNREADABLE_JSON])
def test_json_that_hides_a_mistake_is_refused_where_it_is(text: str, words: str, place: Place) -> None:
    with pytest.raises(NotReadableError, match=words) as refused:
        json_source.read(text)
    assert refused.value.place == place


def test_aliases_make_no_small_text_a_large_document() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(NotReadableError, match="holds more than 1,000,000 values") as refused:
        yaml_source.read("\n".join(lines))
    assert refused.value.place.line == 6


@given(JSON_VALUES)
def test_json_is_read_as_by_everybody(value: Any) -> None:
    for indent in (None, 2):
        read, places = json_source.read(json.dumps(value, indent=indent))
        assert read == value
        assert "" in places


def test_both_formats_know_where_their_parts_are() -> None:
    document, places = yaml_source.read(YAML)
    assert document == DOCUMENT
    assert (places["dag.nodes[1].config"], places["dag.edges[0]"]) == (Place(10, 7), Place(12, 7))
    # What an alias repeats is where the alias is, and what is missing is where it should be.
    assert nearest(places, "dag.nodes[1].config.text") == Place(10, 7)
    assert nearest(places, "dag.nodes[0].config.find") == Place(7, 7)
    text = json.dumps(DOCUMENT, indent=1)
    _, places = json_source.read(text)
    assert text.splitlines()[places["dag.edges[0].to"].line - 1].strip() == '"to": "again"'
    assert nearest(places, "nothing.like[3].that") == Place(1, 1)


@pytest.mark.parametrize("name", ["flow.yaml", "flow.yml", "flow", "-"])
def test_a_workflow_is_created_from_yaml(
    name: str, towline: Terminal, control_plane: FakeControlPlane, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(YAML)
    result = towline("workflow", "create", "-f", "-" if name == "-" else str(file), stdin=YAML)
    assert (result.code, result.stderr) == (0, "")
    assert MessageToDict(control_plane.request("CreateWorkflow")) == DOCUMENT


def test_what_the_server_refuses_is_shown_at_its_line(
    towline: Terminal, control_plane: FakeControlPlane, tmp_path: Path
) -> None:
    def refuse(_: Any) -> Any:
        fields = [("dag.edges[0].to", "'agian' is not a node"), ("dag.nodes[0].type", "is no plugin")]
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no", "INVALID_DAG", fields)

    file = tmp_path / "flow.yaml"
    file.write_text(YAML)
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(DOCUMENT["dag"], indent=1))
    for method in ("CreateWorkflow", "UpdateWorkflow", "CreateWorkflowVersion"):
        control_plane.answers[method] = refuse
    expected = [
        f"error: {file} is not a valid workflow",
        f"  {file}:6:7: dag.nodes[0].type: is no plugin",
        f"  {file}:12:21: dag.edges[0].to: 'agian' is not a node",
    ]
    for command in ("create", "update w1", "version create w1"):
        result = towline("workflow", *command.split(), "-f", str(file))
        assert (result.code, result.stderr.splitlines()) == (2, expected)
    assert f"{bare}:23:4: dag.edges[0].to" in towline("workflow", "version", "create", "w1", "-f", str(bare)).stderr


def test_a_file_is_validated_without_a_server(
    towline: Terminal, control_plane: FakeControlPlane, tmp_path: Path
) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(YAML.replace("type: TEXT_TRANSFORM\n      config: *config", "type: mine"))
    result = towline("workflow", "validate", "-f", str(file))
    assert (result.code, result.stdout) == (0, f"{file} is valid\n")
    assert result.stderr == "not checked without a server: mine\n"

    file.write_text(
        YAML.replace("to: again", "to: agian").replace("uppercase", "shout").replace("id: again", "iid: again")
    )
    result = towline("workflow", "validate", "-f", str(file))
    assert result.code == 2
    assert result.stderr.splitlines() == [
        f"error: {file} is not a valid workflow",
        f"  {file}:8:7: dag.nodes[1].id: is missing",
        f"  {file}:8:7: dag.nodes[1].iid: is not a field; did you mean id?",
        f"  {file}:12:21: dag.edges[0].to: 'agian' is not a node",
    ]
    printed = towline("workflow", "validate", "-f", str(file), "-o", "json")
    assert printed.code == 2
    found = json.loads(printed.stdout)
    assert (found["valid"], found["violations"][0]["line"]) == (False, 8)
    assert control_plane.calls == []


def test_a_config_is_validated_by_the_schema_of_its_built_in(towline: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(YAML.replace("uppercase", "shout"))
    result = towline("workflow", "validate", "-f", str(file))
    assert f"{file}:7:24: dag.nodes[0].config.transform: must be one of" in result.stderr
