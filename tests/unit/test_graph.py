"""Compiling a DAG: what is accepted, and that all that is wrong is named where it is."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline_controlplane.engine.graph import Dag, compile_dag
from towline_controlplane.engine.placement import queue_id
from towline_controlplane.errors import InvalidDag
from towline_controlplane.model import PluginRef
from towline_controlplane.requirements import Requirements, Size
from towline_dag.choices import ConditionType, Join, RetryPolicy, SideEffects

Document = dict[str, Any]


def node(node_id: str, **fields: Any) -> Document:
    return {"id": node_id, "type": "T"} | fields


def edge(source: str, target: str, **condition: Any) -> Document:
    return {"from": source, "to": target} | ({"condition": condition} if condition else {})


def dag(*edges: Document, nodes: str = "a b c d") -> Document:
    return {"nodes": [node(name) for name in nodes.split()], "edges": list(edges)}


def chain(length: int) -> Document:
    names = [f"n{index}" for index in range(length)]
    return {"nodes": [node(name) for name in names], "edges": [edge(*names[i : i + 2]) for i in range(length - 1)]}


def wrong(document: Document) -> dict[str, str]:
    """Returns the violations of a document: message by field."""
    with pytest.raises(InvalidDag) as caught:
        compile_dag(document)
    assert caught.value.reason == "INVALID_DAG"
    return {violation.field: violation.message for violation in caught.value.violations}


def test_a_node_says_nothing_and_gets_the_defaults() -> None:
    compiled = compile_dag({"nodes": [{"id": "a", "type": "TEXT_TRANSFORM"}]})
    only = compiled.nodes[0]
    assert (only.index, only.id, only.type, only.plugin_id, only.plugin_version) == (0, "a", "TEXT_TRANSFORM", "", "")
    assert (only.retry, only.join, only.side_effects) == (RetryPolicy(), Join.ALL, SideEffects.IDEMPOTENT)
    assert (only.timeout_ms, only.memory_limit_mb, only.requirements, only.display_name) == (0, 0, Requirements(), "")
    assert (only.config.value, only.config.is_constant, only.queue_id) == ({}, True, queue_id(Requirements()))


def test_a_node_says_everything_in_the_json_of_the_contract() -> None:
    compiled = compile_dag(
        {
            "nodes": [
                {
                    "id": "node-1",
                    "pluginId": "plugin-1",
                    "pluginVersion": "1.0.0",
                    "config": {"text": "${{ input.text }}"},
                    "retryConfig": {
                        "maxAttempts": 5,
                        "backoffMs": "250",
                        "backoffMultiplier": 1.5,
                        "maxBackoffMs": "9000",
                        "maxLost": 0,
                    },
                    "join": "ANY",
                    "sideEffects": "UNSAFE",
                    "timeoutMs": "30000",
                    "memoryLimitMb": 512,
                    "labels": {"gpu": "yes"},
                    "displayName": "First",
                    "minSandbox": "L2",
                }
            ]
        }
    )
    only = compiled.nodes[0]
    assert only.retry == RetryPolicy(5, 250, 1.5, 9_000, 0)
    assert (only.type, only.plugin_id, only.plugin_version) == ("", "plugin-1", "1.0.0")
    assert (only.join, only.side_effects, only.display_name) == (Join.ANY, SideEffects.UNSAFE, "First")
    assert (only.timeout_ms, only.memory_limit_mb) == (30_000, 512)
    assert only.requirements == Requirements({"gpu": "yes"}, 2, size=Size(memory_mb=512))
    assert only.queue_id == queue_id(only.requirements)
    assert not only.config.is_constant


def test_zero_and_unspecified_mean_unset() -> None:
    unset = {"maxAttempts": 0, "backoffMultiplier": 0, "maxBackoffMs": "0"}
    compiled = compile_dag(
        {
            "nodes": [
                node(
                    "a", join="JOIN_UNSPECIFIED", sideEffects="SIDE_EFFECTS_UNSPECIFIED", retryConfig=unset, config={}
                ),
                node("b"),
            ],
            "edges": [edge("a", "b", type="TYPE_UNSPECIFIED", expression="")],
        }
    )
    assert compiled.nodes[0].retry == RetryPolicy()
    assert compiled.edges[0].condition is ConditionType.ON_SUCCESS


def test_no_backoff_is_not_the_default_backoff() -> None:
    assert compile_dag({"nodes": [node("a", retryConfig={"backoffMs": 0})]}).nodes[0].retry.backoff_ms == 0


@pytest.mark.parametrize(("own", "expected"), [("", "UNSAFE"), ("NONE", "NONE")])
def test_side_effects_are_the_plugins_unless_the_node_says_otherwise(own: str, expected: str) -> None:
    plugin = PluginRef("mail", "1.0.0", "digest", "python:mail:send", SideEffects.UNSAFE)
    assert compile_dag({"nodes": [node("a", sideEffects=own)]}, {"a": plugin}).nodes[0].side_effects == expected


def test_edges_are_found_by_either_end() -> None:
    compiled = compile_dag(
        dag(
            edge("a", "c"),
            edge("b", "c", type="ALWAYS"),
            edge("a", "d", type="ON_FAILURE"),
            edge("c", "d", type="EXPRESSION", expression="nodes.c.output.ok"),
        )
    )
    assert [[e.target for e in edges] for edges in compiled.outgoing] == [[2, 3], [2], [3], []]
    assert compiled.incoming == ((), (), (0, 1), (0, 2))
    assert compiled.in_degree == (0, 0, 2, 2)
    assert compiled.by_id == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert compiled.handles_failure == (True, False, False, False)
    assert [e.condition.value for e in compiled.edges] == ["ON_SUCCESS", "ALWAYS", "ON_FAILURE", "EXPRESSION"]
    expression = compiled.edges[3].expression
    assert expression is not None
    assert expression.references == {"c"}


@pytest.mark.parametrize("node_id", ["a", "_", "A-1", "step.one", "x" * 128])
def test_ids_that_are_fine(node_id: str) -> None:
    assert compile_dag({"nodes": [node(node_id)]}).by_id == {node_id: 0}


@pytest.mark.parametrize("node_id", ["1a", "-a", ".a", "a b", "a[3]", "é", "a\n", "x" * 129, "a/b"])
def test_ids_that_are_not(node_id: str) -> None:
    assert "is not an id" in wrong({"nodes": [node(node_id)]})["dag.nodes[0].id"]


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ({}, "dag.nodes", "must have at least one node"),
        ({"nodes": []}, "dag.nodes", "must have at least one node"),
        ({"nodes": "a"}, "dag.nodes", "must be a list"),
        ({"nodes": ["a"]}, "dag.nodes[0]", "must be an object"),
        ({"nodes": [node("a")], "edges": {"a": "b"}}, "dag.edges", "must be a list"),
        ({"nodes": [{"type": "T"}]}, "dag.nodes[0].id", "is missing"),
        ({"nodes": [node("")]}, "dag.nodes[0].id", "is missing"),
        ({"nodes": [{"id": 7, "type": "T"}]}, "dag.nodes[0].id", "must be a string"),
        ({"nodes": [{"id": "a"}]}, "dag.nodes[0].type", "is missing: name a built-in or a plugin"),
        (dag(nodes="a b a"), "dag.nodes[2].id", "'a' is the id of dag.nodes[0] already"),
        (dag(edge("a", "a")), "dag.edges[0].to", "leads from 'a' to itself"),
        (dag(edge("a", "b"), edge("a", "b")), "dag.edges[1].to", "'a' → 'b' is dag.edges[0] already"),
        (dag(edge("a", "")), "dag.edges[0].to", "must be the id of a node"),
        (dag({"to": "a"}), "dag.edges[0].from", "must be the id of a node"),
        (dag(edge("a", "x"), nodes="a"), "dag.edges[0].to", "'x' is not a node"),
        (
            dag(edge("fetch", "trasnform"), nodes="fetch transform"),
            "dag.edges[0].to",
            "'trasnform' is not a node; did you mean 'transform'?",
        ),
        (dag(edge("a", "b"), edge("b", "c"), edge("c", "a")), "dag.edges[2]", "closes a cycle: a → b → c → a"),
        (dag(edge("a", "b"), edge("b", "c"), edge("c", "b")), "dag.edges[2]", "closes a cycle: b → c → b"),
        (dag(edge("c", "d"), edge("d", "a"), edge("a", "c")), "dag.edges[1]", "closes a cycle: a → c → d → a"),
        (
            dag(edge("a", "b", type="SOMETIMES")),
            "dag.edges[0].condition.type",
            "is 'SOMETIMES'; it must be one of ALWAYS, ON_SUCCESS, ON_FAILURE, EXPRESSION",
        ),
        (dag(edge("a", "b", type=9)), "dag.edges[0].condition.type", None),
        (
            dag(edge("a", "b", type="EXPRESSION")),
            "dag.edges[0].condition.expression",
            "is missing: the type is EXPRESSION",
        ),
        (
            dag(edge("a", "b", type="ALWAYS", expression="true")),
            "dag.edges[0].condition.expression",
            "is only for the type EXPRESSION",
        ),
        (dag(edge("a", "b", expression="true")), "dag.edges[0].condition.expression", None),
        (
            dag(edge("a", "b", type="EXPRESSION", expression="true &&\n 1 +")),
            "dag.edges[0].condition.expression",
            "2:5: mismatched input '<EOF>'",
        ),
        (
            dag(edge("a", "b", type="EXPRESSION", expression="inputs.x")),
            "dag.edges[0].condition.expression",
            "1:7: undeclared reference to 'inputs.x'",
        ),
        ({"nodes": [node("a", join="AL")]}, "dag.nodes[0].join", "is 'AL'; it must be one of ALL, ANY, ALL_DONE"),
        ({"nodes": [node("a", sideEffects="SAFE")]}, "dag.nodes[0].sideEffects", None),
        ({"nodes": [node("a", type="T" * 129)]}, "dag.nodes[0].type", "has 129 characters; the limit is 128"),
        ({"nodes": [node("a", displayName=5)]}, "dag.nodes[0].displayName", "must be a string"),
        ({"nodes": [node("a", timeoutMs="-1")]}, "dag.nodes[0].timeoutMs", None),
        ({"nodes": [node("a", timeoutMs=True)]}, "dag.nodes[0].timeoutMs", "must be an integer"),
        ({"nodes": [node("a", timeoutMs="9" * 5000)]}, "dag.nodes[0].timeoutMs", "must be an integer"),
        ({"nodes": [node("a", memoryLimitMb=1.5)]}, "dag.nodes[0].memoryLimitMb", "must be an integer"),
        ({"nodes": [node("a", retryConfig=[])]}, "dag.nodes[0].retryConfig", "must be an object"),
        (
            {"nodes": [node("a", retryConfig={"maxAttempts": 101})]},
            "dag.nodes[0].retryConfig.maxAttempts",
            "is 101; it must be between 1 and 100",
        ),
        (
            {"nodes": [node("a", retryConfig={"backoffMultiplier": 0.5})]},
            "dag.nodes[0].retryConfig.backoffMultiplier",
            "is 0.5; it must be between 1 and 1000",
        ),
        (
            {"nodes": [node("a", retryConfig={"backoffMultiplier": "2"})]},
            "dag.nodes[0].retryConfig.backoffMultiplier",
            "must be a number",
        ),
        ({"nodes": [node("a", retryConfig={"maxLost": -1})]}, "dag.nodes[0].retryConfig.maxLost", None),
        ({"nodes": [node("a", labels={"gpu": 1})]}, "dag.nodes[0].labels", "the value of 'gpu' must be a string"),
        ({"nodes": [node("a", labels={"": "x"})]}, "dag.nodes[0].labels", None),
        ({"nodes": [node("a", labels={"k": "v" * 257})]}, "dag.nodes[0].labels", None),
        ({"nodes": [node("a", labels={f"k{i}": "" for i in range(65)})]}, "dag.nodes[0].labels", None),
        ({"nodes": [node("a", config=[1])]}, "dag.nodes[0].config", "must be an object"),
        ({"nodes": [node("a", config={"x": "y" * 262_144})]}, "dag.nodes[0].config", None),
        (
            {"nodes": [node("a", config={"headers": [{"auth": "x ${{ inptu }}"}]})]},
            "dag.nodes[0].config.headers[0].auth",
            "${{ inptu }}: 1:1: undeclared reference to 'inptu'",
        ),
        (
            {"nodes": [node("a", config={"x": "${{ nodes.b.output }}"})]},
            "dag.nodes[0].config",
            "1:1: 'b' is not a node",
        ),
        (
            {"nodes": [node("a"), node("b", config={"x": "${{ nodes.a.output }}"})]},
            "dag.nodes[1].config",
            "1:1: 'a' need not have ended when 'b' begins: no path leads from it to there",
        ),
        (
            {"nodes": [node("a", config={"x": "${{ nodes.a.output }}"})]},
            "dag.nodes[0].config",
            "1:1: 'a' need not have ended when 'a' begins: no path leads from it to there",
        ),
        (
            dag(edge("a", "b", type="EXPRESSION", expression="nodes.b.state == 'X'")),
            "dag.edges[0].condition.expression",
            "1:1: 'b' need not have ended when 'a' ends: no path leads from it to there",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_where_it_is(document: Document, field: str, message: str | None) -> None:
    violations = wrong(document)
    assert field in violations
    assert message is None or violations[field] == message


def test_everything_that_is_wrong_is_named_at_once() -> None:
    document = dag(edge("a", "b"), edge("b", "a"), edge("b", "x"), edge("c", "d", type="NEVER"), nodes="a b c d 9")
    assert set(wrong(document)) == {"dag.nodes[4].id", "dag.edges[1]", "dag.edges[2].to", "dag.edges[3].condition.type"}


def test_cycles_apart_from_each_other_are_all_named() -> None:
    document = dag(edge("a", "b"), edge("b", "a"), edge("b", "c"), edge("c", "d"), edge("d", "c"))
    assert [message for _, message in sorted(wrong(document).items())] == [
        "closes a cycle: a → b → a",
        "closes a cycle: c → d → c",
    ]


def test_a_long_answer_says_how_much_more_there_is() -> None:
    with pytest.raises(InvalidDag) as caught:
        compile_dag({"nodes": [node("a")], "edges": [edge("a", f"x{index}") for index in range(50_000)]})
    assert len(caught.value.violations) == 50
    assert caught.value.violations[-1].message == "and 49951 more"


def test_a_long_cycle_is_named_in_short() -> None:
    document = chain(5_000)
    document["edges"].append(edge("n4999", "n0"))
    message = wrong(document)["dag.edges[4999]"]
    assert message.startswith("closes a cycle: n0 → n1 → ")
    assert message.endswith(" → n4999 → n0")
    assert " more) → " in message
    assert len(message) < 500


@pytest.mark.parametrize(("nodes", "edges", "field"), [(10_001, 0, "dag.nodes"), (1, 50_001, "dag.edges")])
def test_too_much_is_refused_before_it_is_read(nodes: int, edges: int, field: str) -> None:
    document = {"nodes": [node(f"n{index}") for index in range(nodes)], "edges": [edge("n0", "n0")] * edges}
    ((place, message),) = wrong(document).items()
    assert place == field
    assert "the limit is" in message


def test_expressions_are_counted_over_all_nodes() -> None:
    many = {f"k{index}": "${{ 1 }}" for index in range(1_000)}
    assert "expressions" in wrong({"nodes": [node(f"n{index}", config=many) for index in range(21)]})["dag.nodes"]


def test_deep_and_wide_graphs_compile() -> None:
    assert compile_dag(chain(10_000)).in_degree == (0, *[1] * 9_999)
    names = [f"n{index}" for index in range(10_000)]
    edges = [
        edge(names[index - 100 - index % 100 + lane], names[index]) for index in range(100, 10_000) for lane in range(4)
    ]
    assert sum(compile_dag({"nodes": [node(name) for name in names], "edges": edges}).in_degree) == 39_600


def test_a_reference_may_reach_far_back() -> None:
    document = chain(3_000)
    document["nodes"][-1]["config"] = {"x": "${{ nodes.n0.output }}"}
    assert compile_dag(document).nodes[-1].config.references == {"n0"}


@st.composite
def documents(draw: st.DrawFn) -> tuple[Document, list[tuple[int, int]]]:
    """A graph without cycles whose nodes come in any order, and its edges as pairs of places in that order."""
    count = draw(st.integers(1, 12))
    order = draw(st.permutations(range(count)))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30)) if pairs else []
    edges = [edge(f"n{order[a]}", f"n{order[b]}") for a, b in chosen]
    return {"nodes": [node(f"n{index}") for index in range(count)], "edges": edges}, chosen


@given(documents())
def test_every_graph_without_a_cycle_is_accepted(drawn: tuple[Document, list[tuple[int, int]]]) -> None:
    document, _ = drawn
    compiled: Dag = compile_dag(document)
    assert len(compiled.edges) == len(document["edges"])
    assert sum(compiled.in_degree) == len(compiled.edges)


@given(documents(), st.data())
@settings(max_examples=200)
def test_a_cycle_that_is_named_is_one(drawn: tuple[Document, list[tuple[int, int]]], data: st.DataObject) -> None:
    document, _ = drawn
    known = {(each["from"], each["to"]) for each in document["edges"]}
    forward = sorted(known) or [("n0", "n0")]
    start, end = data.draw(st.sampled_from(forward))
    if start == end:
        return
    document["edges"].append(edge(end, start))
    (message,) = wrong(document).values()
    names = message.removeprefix("closes a cycle: ").split(" → ")
    assert names[0] == names[-1]
    assert len(set(names)) == len(names) - 1
    assert set(pairwise(names)) <= known | {(end, start)}
