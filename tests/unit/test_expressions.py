"""Expressions: what they mean, what they may read, and that none of them can do harm."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_dag.expressions import ExpressionError, Scope, compile_condition, compile_expression

NODES = {
    "fetch": {"state": "SUCCEEDED", "output": {"count": 11, "ratio": 0.5, "tags": ["a", "b"], "none": None}},
    "build-it": {"state": "FAILED", "output": None},
    "v1.2": {"state": "SKIPPED", "output": None},
}
SCOPE = Scope(
    input={"n": 10, "x": 10.5, "name": "Ann", "items": [{"id": 1, "ok": True}, {"id": 2, "ok": False}], "a-b": 1},
    run={"id": "run-1", "workflowId": "workflow-1"},
    nodes=NODES,
)


def value_of(source: str, run_input: object = None) -> Any:
    scope = SCOPE if run_input is None else Scope(run_input, {}, {})
    return compile_expression(source).evaluate(scope)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nodes.fetch.output.count > 10", True),
        ("nodes.fetch.output.count > 10.5", True),
        ("input.x > 10 && input.n >= 10", True),
        ("input.n == 10.0 || false", True),
        ("nodes['build-it'].state == 'FAILED'", True),
        ("nodes['v1.2'].output == null", True),
        ("nodes.fetch.state in ['SUCCEEDED', 'SKIPPED']", True),
        ("has(input.name) && !has(input.missing)", True),
        ("has(input.missing) && input.missing > 1", False),
        ("input['a-b']", 1),
        ("input.items.filter(i, i.ok).map(i, i.id)", [1]),
        ("input.items.exists(i, i.id == 2)", True),
        ("input.items.all(i, i.id > 1)", False),
        ("input.items.exists_one(i, i.ok)", True),
        ("input.items[1].id", 2),
        ("size(input.items) + size(input.name)", 5),
        ("input.name + ' & ' + run.id", "Ann & run-1"),
        ("input.name.startsWith('A') && input.name.matches('^A.n$') && input.name.contains('nn')", True),
        ("input.n % 3 == 1 ? 'one' : 'other'", "one"),
        ("double(input.n) * 1.5", 15),
        ("int(input.x)", 10),
        ("string(input.n) + string(1.5) + string(true)", "101.5true"),
        ("{'b': [1, 2.5, null], 'a': {'nested': true}}", {"a": {"nested": True}, "b": [1, 2.5, None]}),
        ("duration('90s') > duration('1m')", True),
        ("string(timestamp('2026-01-02T03:04:05Z'))", "2026-01-02T03:04:05Z"),
        ("'}}' + r'\\n' + \"\\n\"", "}}\\n\n"),
        ("input.n // a comment", 10),
        ("nodes.fetch.output", {"count": 11, "ratio": 0.5, "tags": ["a", "b"], "none": None}),
        ("input.items.map(i, nodes.fetch.output.tags)", [["a", "b"], ["a", "b"]]),
    ],
)
def test_value(source: str, expected: object) -> None:
    value = value_of(source)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("source", "references"),
    [
        ("input.n > 1", set[str]()),
        ("nodes.fetch.state == nodes['build-it'].state", {"fetch", "build-it"}),
        ("has(nodes.fetch.output.count)", {"fetch"}),
        ("input.items.map(i, nodes['v1.2'].output)", {"v1.2"}),
        (".nodes.fetch.state", {"fetch"}),
        ("'nodes.other.state'", set[str]()),
        ("input.nodes.other", set[str]()),
        ("[1].map(fetch, nodes.fetch.output.map(x, nodes.b.output[x]))", {"fetch", "b"}),
    ],
)
def test_the_nodes_that_an_expression_names_are_known(source: str, references: set[str]) -> None:
    assert compile_expression(source).references == references


@pytest.mark.parametrize(
    "source",
    ["nodes", "nodes[input.name]", "nodes['a' + 'b']", "size(nodes)", "nodes.map(n, n)", "'a' in nodes", "[nodes]",
     "nodes == {}", ".nodes", "true ? nodes : nodes", "nodes[input.name].state"],
)  # fmt: skip
def test_nodes_are_named_and_nothing_else(source: str) -> None:
    with pytest.raises(ExpressionError, match="name each node where it is used"):
        compile_expression(source)


@pytest.mark.parametrize("name", ["nodes", "input", "run"])
def test_a_variable_cannot_take_the_name_of_the_scope(name: str) -> None:
    with pytest.raises(ExpressionError, match=f"'{name}' cannot be the name of a variable"):
        compile_expression(f"[1].map({name}, 1)")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("1 +", "1:4: mismatched input '<EOF>'"),
        ("true &&\n  foo", "2:3: undeclared reference to 'foo'"),
        ("'a' + 1", "1:5: found no matching overload for '_+_' applied to '(string, int)'"),
        ("1 + 1.5", "convert one side with double(…) or int(…)"),
        ("'unclosed", "token recognition error"),
        ("a b", "1:3: extraneous input 'b'"),
        ("'x' " * 600, "it has 2400 characters; the limit is 2048"),
        ("(" * 40 + "1" + ")" * 40, "it is nested too deeply"),
        ("-".join("1" * 40), "it is nested too deeply"),
        ("[1].map(a, [1].map(b, [1].map(c, [1].map(d, 1))))", "it has 4 of map, filter, all, exists and exists_one"),
        ("google.protobuf.Value{}", "messages such as google.protobuf.Value are not available"),
        ("__import__('os')", "undeclared reference to '__import__'"),
        ("'\ud800'", "it is not valid Unicode"),
    ],
)
def test_what_cannot_be_compiled_says_why(source: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("input.missing", 'there is no key "missing"'),
        ("nodes['v1.2'].output.x", "a field is selected from a value that is not an object"),
        ("input.items[5].id", "Index error: index=5 size=2"),
        ("1 / (input.n - 10)", "divide by zero"),
        ("input.x + 1", "convert one side with double(…) or int(…)"),
        ("input.name > 1", "No matching overloads found : _>_(string, int64)"),
        ("9223372036854775807 + input.n", "integer overflow"),
        ("9007199254740993", "beyond the integers that JSON keeps exactly"),
        ("0.0 / 0.0", "it yields nan"),
        ("-1.0 / 0.0", "it yields -inf"),
        ("b'ab'", "it yields a value of type bytes"),
        ("[timestamp('2026-01-02T03:04:05Z')]", "it yields a value of type timestamp"),
        ("{'a': duration('1s')}", "it yields a value of type duration"),
        ("type(1)", "it yields a value of type type"),
        ("{1: 'a'}", "an object with the key 1"),
        ("int(input.name)", "cannot convert"),
    ],
)
def test_what_cannot_be_evaluated_says_why(source: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value_of(source)
    assert message.lower() in caught.value.message.lower()
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("source", ["'true'", "1", "null", "input.items", "input", "1.5"])
def test_a_condition_yields_true_or_false(source: str) -> None:
    with pytest.raises(ExpressionError, match="a condition must yield true or false, not "):
        compile_expression(source).evaluate_condition(SCOPE)


def test_an_expression_is_compiled_once() -> None:
    assert compile_expression("input.n == 4711") is compile_expression("input.n == 4711")


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("nodes.a.output.x == 1", True),
        ("nodes.a", True),
        ("nodes['a']['output'] != null", True),
        ("nodes.a.state == 'FAILED' || nodes.a.output.x == 1", True),
        ("nodes.a.state == 'SUCCEEDED'", False),
        ("nodes.b.output.x == 1", False),
    ],
)
def test_a_large_output_cannot_be_read_but_its_state_can(source: str, reads: bool) -> None:
    program = compile_expression(source)
    nodes = {"a": {"state": "SUCCEEDED", "output": None}, "b": {"state": "SUCCEEDED", "output": {"x": 1}}}
    scope = Scope(None, {}, nodes, withheld=frozenset({"a"}))
    if not reads:
        assert program.evaluate_condition(scope)
        return
    with pytest.raises(ExpressionError, match="the output of 'a' is larger than the 256 KiB that expressions can read"):
        program.evaluate(scope)


def test_only_what_is_read_is_looked_at() -> None:
    unreadable = object()
    scope = Scope({"n": 1, "rest": unreadable}, {}, {"a": {"output": {"x": 2, "rest": unreadable}}, "b": unreadable})
    assert compile_expression("input.n + nodes.a.output.x").evaluate(scope) == 3


BIG = "x" * 500_000
NUMBERS = list(range(500_000))


def repeated(part: str, times: int, between: str) -> str:
    return between.join([part] * times)


@pytest.mark.parametrize(
    ("source", "run_input"),
    [
        (
            f"['x'].map(a, {repeated('a', 30, '+')}).map(a, {repeated('a', 30, '+')}).map(a, {repeated('a', 30, '+')})",
            0,
        ),
        (f"[input].map(a, {repeated('a', 25, '+')}).map(a, {repeated('a', 25, '+')}).map(a, a + a)", BIG),
        (repeated("input", 20, "+"), BIG),
        (repeated("(input + input)", 12, "+"), NUMBERS),
        (f"[input].map(a, [{repeated('a', 300, ',')}]).map(a, [{repeated('a', 300, ',')}]).map(a, a == a)", [1] * 50),
        (f"[[input]].map(a, [{repeated('a', 300, ',')}]).map(a, [{repeated('a', 300, ',')}])", "x"),
        ("input.map(a, input == input)", list(range(9_000))),
        ("input.all(a, input.all(b, input.all(c, true)))", list(range(2_000))),
        ("input.all(a, a in input)", list(range(9_000))),
        ("input.map(a, a)", list(range(9_000))),
        ("input.map(a, a)", list(range(100_000))),
        ("input.text.contains(input.part)", {"text": "a" * 500_000, "part": "a" * 100_000 + "b"}),
        ("input.text.matches(input.part)", {"text": "a" * 500_000, "part": "(a|b)*" * 10_000}),
        ("input.map(a, string(a) + input[0])", [BIG] * 50),
        ("input", BIG),
        ("input", NUMBERS),
        ("[input, input]", {"a": "x" * 200_000}),
        ("input.map(a, input)", [[1] * 100] * 100),
    ],
)
def test_a_bomb_does_not_go_off(source: str, run_input: object) -> None:
    with pytest.raises(ExpressionError):
        value_of(source, run_input)


@pytest.mark.parametrize(
    ("source", "run_input", "expected"),
    [
        ("input.all(a, a >= 0)", list(range(9_000)), True),
        ("input.map(a, a + 1).size()", list(range(2_000)), 2_000),
        ("input.a.filter(x, x.id in input.b).size()", {"a": [{"id": n, "x": [n] * 9} for n in range(900)],
                                                      "b": list(range(0, 1800, 2))}, 450),
        ("input.lines.map(l, l + input.suffix).size()", {"lines": ["l" * 100] * 1_000, "suffix": ";"}, 1_000),
        ("input.text.contains('needle') || input.text.matches('x+y')", {"text": BIG}, False),
        ("input == input", NUMBERS, True),
        ("input.big.size() > 3 && input.n == 1", {"big": NUMBERS, "n": 1}, True),
    ],
)  # fmt: skip
def test_honest_work_on_large_values_is_done(source: str, run_input: object, expected: object) -> None:
    assert value_of(source, run_input) == expected


# The library cuts text off at a NUL, which free JSON may not hold (I31).
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_a_json_value_goes_through_as_it_is(value: object) -> None:
    assert compile_expression("input").evaluate(Scope(value, {}, {})) == value


@given(st.integers(-1_000, 1_000), st.floats(-1_000, 1_000))
def test_whole_and_broken_numbers_compare_as_numbers(whole: int, broken: float) -> None:
    scope = Scope({"a": whole, "b": broken}, {}, {})
    for operator, expected in [("<", whole < broken), (">=", whole >= broken), ("==", whole == broken)]:
        assert compile_expression(f"input.a {operator} input.b").evaluate_condition(scope) is expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_integral_value_is_an_int(value: float) -> None:
    result = value_of("input.v", {"v": value})
    assert isinstance(result, int) == (value.is_integer() and abs(value) < 2**53)
    assert isinstance(result, int | float)
    assert math.isclose(result, value, rel_tol=0, abs_tol=0)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 + 1", "1:1: a condition must yield true or false; this one yields int"),
        ("'yes'", "1:1: a condition must yield true or false; this one yields string"),
        ("[input.x]", "1:1: a condition must yield true or false; this one yields list<dyn>"),
        ("nodes.a.outptu > 1", "a node has state and output, not 'outptu'"),
        ("run.input == 1", "a run has id, workflowId, scheduledTime, not 'input'"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused_when_it_is_compiled(source: str, said: str) -> None:
    with pytest.raises(ExpressionError) as refusal:
        compile_condition(source)
    assert refusal.value.message == said


@pytest.mark.parametrize(
    "source", ["input.x", "input.x > 1", "nodes.a.output.ok", "has(nodes.a.output)", "nodes.a.output['x']"]
)
def test_a_condition_that_may_hold_is_taken(source: str) -> None:
    assert compile_condition(source).source == source


@pytest.mark.parametrize(
    ("source", "position"),
    [
        ("nodes.a.state", "1:1"),
        ("input.x > 1 &&\n  nodes['a'].output.n", "2:3"),
        ('nodes.ab.state == nodes["a"].state', "1:19"),
        ("nodes.b.state == '' || nodes . a.state == ''", "1:24"),
    ],
)
def test_the_place_that_names_a_node_is_found(source: str, position: str) -> None:
    assert compile_expression(source).position("a") == position
