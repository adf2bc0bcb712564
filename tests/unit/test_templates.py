"""Configs with expressions in them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline_dag.expressions import ExpressionError, Scope
from towline_dag.templates import compile_template

SCOPE = Scope(
    input={"n": 3, "name": "Ann", "list": [1, "two", None], "x": 1.5},
    run={"id": "run-1"},
    nodes={"a": {"state": "SUCCEEDED", "output": {"text": "hi"}}},
)


def rendered(value: object) -> object:
    return compile_template(value).render(SCOPE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${{ input.n }}", 3),
        ("${{input.list}}", [1, "two", None]),
        ("${{ null }}", None),
        ("${{ input.x > 1.0 }}", True),
        ("n=${{ input.n }}", "n=3"),
        (" ${{ input.n }}", " 3"),
        ("${{ input.n }}${{ input.n }}", "33"),
        ("Hello ${{ input.name }}, ${{ nodes.a.output.text }}!", "Hello Ann, hi!"),
        ("${{ input.list }} ${{ {'k': input.x} }} ${{ true }} ${{ null }}", '[1,"two",null] {"k":1.5} true null'),
        ("a string is put in bare: ${{ '\"' }}", 'a string is put in bare: "'),
        ("${{ '}}' }}", "}}"),
        ("${{ \"}}'\" + '\\'}}\" ' }}", "}}''}}\" "),
        ("${{ r'\\d' + '}}' }}", "\\d}}"),
        ("${{ '''}}'}}''' + \"\"\"}}\"\"\" }}", "}}'}}}}"),
        ("${{ {'a': {'b': input.n}} }}", {"a": {"b": 3}}),
        ("${{ {'a': {'b': 1}}}}", {"a": {"b": 1}}),
        ("${{ {}.size() }}}}", "0}}"),
        ("${{ 1 +\n 2 }}", 3),
        ("$${{ input.n }}", "${{ input.n }}"),
        ("$${{ ${{ input.n }} }}", "${{ 3 }}"),
        ("$$${{ input.n }}", "$${{ input.n }}"),
        ("$ {{ }} ${ x } {{ y }}", "$ {{ }} ${ x } {{ y }}"),
    ],
)
def test_string(text: str, expected: object) -> None:
    value = rendered(text)
    assert value == expected
    assert type(value) is type(expected)


def test_templates_lie_at_any_depth_and_leave_the_rest_alone() -> None:
    config = {"headers": [{"x": "${{ input.n }}", "y": [1, {"z": "${{ run.id }}"}]}], "${{ key }}": 1.0, "n": None}
    template = compile_template(config)
    assert template.render(SCOPE) == {
        "headers": [{"x": 3, "y": [1, {"z": "run-1"}]}],
        "${{ key }}": 1.0,
        "n": None,
    }
    assert config["headers"] == [{"x": "${{ input.n }}", "y": [1, {"z": "${{ run.id }}"}]}]
    assert template.value is config


def test_the_nodes_of_all_expressions_are_known() -> None:
    template = compile_template(
        {"a": "${{ nodes.x.output }} ${{ nodes['y-1'].state }}", "b": ["${{ nodes.z.output }}"]}
    )
    assert template.references == {"x", "y-1", "z"}
    assert len(template.programs) == 3


@pytest.mark.parametrize(
    ("value", "is_constant"), [("${{ 1 }}", False), ("$${{ 1 }}", False), ({"a": ["}} {{"]}, True)]
)
def test_a_template_that_renders_to_itself_is_constant(value: object, is_constant: bool) -> None:
    assert compile_template(value).is_constant is is_constant


@pytest.mark.parametrize(
    ("value", "place", "message"),
    [
        ("${{ input.n", "", "${{ input.n has no closing }}; a literal ${{ is written $${{"),
        ("a ${{ 'x }} b", "", "${{ 'x }} b has a string that is not closed"),
        ("${{ } }}", "", "${{ } }} has a } that closes nothing"),
        ("${{}}", "", "${{  }}: it is empty"),
        ("${{ {'a': 1 }}", "", "${{ {'a': 1 }} has a } that closes nothing"),
        ({"a": [0, {"b": "${{ nope }}"}]}, ".a[1].b", "${{ nope }}: 1:1: undeclared reference to 'nope'"),
        ({"a": "${{ nodes }}"}, ".a", "${{ nodes }}: name each node where it is used: nodes.<id> or nodes['<id>']"),
        ({"a": "${{ 1 }}" * 1001}, ".a", "this is beyond the limit of 1000 expressions"),
    ],
)
def test_what_cannot_be_compiled_says_where_and_why(value: object, place: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template(value)
    assert (caught.value.place, caught.value.message) == (place, message)


def test_a_config_has_a_bounded_depth() -> None:
    value: object = "leaf"
    for _ in range(33):
        value = [value]
    with pytest.raises(ExpressionError, match="nested deeper than 32 levels"):
        compile_template(value)


def test_what_cannot_be_rendered_names_its_expression() -> None:
    with pytest.raises(ExpressionError, match=r"\$\{\{ input.missing \}\}: there is no key"):
        rendered({"a": "x ${{ input.missing }}"})


def test_what_expressions_add_is_bounded() -> None:
    template = compile_template(["${{ input }}"] * 10)
    assert len(str(template.render(Scope("x" * 100_000, {}, {})))) > 1_000_000
    with pytest.raises(ExpressionError, match="add up to more than 1024 KiB"):
        template.render(Scope("x" * 200_000, {}, {}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values.filter(lambda value: "${{" not in str(value)))
def test_what_holds_no_expression_comes_out_as_it_went_in(value: object) -> None:
    template = compile_template(value)
    assert template.is_constant
    assert template.render(SCOPE) == value


@given(st.text(), st.text())
def test_the_text_around_an_expression_is_kept(before: str, after: str) -> None:
    if "${{" in before + after or before.endswith("$"):
        return
    template = compile_template(f"{before}${{{{ input.name }}}}{after}|")
    assert template.render(SCOPE) == f"{before}Ann{after}|"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_can_be_written_as_a_string_of_an_expression(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    assert rendered(f"${{{{ '{quoted}' }}}}") == text


@given(st.text("${}'\"\\r n", max_size=30))
def test_a_text_is_a_template_or_is_told_what_is_wrong_with_it(text: str) -> None:
    with suppress(ExpressionError):
        rendered(text)
