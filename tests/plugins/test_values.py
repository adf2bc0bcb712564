"""The built-ins that compute a value from their arguments alone."""

import json
from typing import Any

import jsonschema
import pytest

from towline_plugins import delay, json_transform, python, text_transform
from towline_plugins.catalog import BUILTINS
from towline_sdk.plugin import PermanentError


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"transform": "uppercase", "text": "straße"}, "STRASSE"),
        ({"transform": "lowercase", "text": "ÄB"}, "äb"),
        ({"transform": "title", "text": "two words"}, "Two Words"),
        ({"transform": "trim", "text": " \t a b \n"}, "a b"),
        ({"transform": "reverse", "text": "abc"}, "cba"),
        ({"transform": "replace", "text": "a.b.c", "find": ".", "replacement": "-"}, "a-b-c"),
        ({"transform": "replace", "text": "a.b", "find": "."}, "ab"),
        ({"transform": "uppercase", "text": ""}, ""),
    ],
)
def test_text_transform(config: dict[str, Any], text: str) -> None:
    output = text_transform.run(config, {}, None)
    assert output == {"text": text}
    jsonschema.validate(output, BUILTINS["TEXT_TRANSFORM"].output_schema)


@pytest.mark.parametrize(
    ("inputs", "run_input", "text"),
    [
        ({"a": {"text": "from a"}}, {"text": "from run"}, "FROM A"),
        ({"a": {"other": 1}}, {"text": "from run"}, "FROM RUN"),
        ({"a": {"text": "from a"}, "b": {"text": "from b"}}, {"text": "from run"}, "FROM RUN"),
        ({}, {"text": "from run"}, "FROM RUN"),
    ],
)
def test_text_transform_finds_its_text(inputs: dict[str, Any], run_input: object, text: str) -> None:
    assert text_transform.run({"transform": "uppercase"}, inputs, run_input) == {"text": text}


@pytest.mark.parametrize("run_input", [None, "text", {"text": 1}, {}])
def test_text_transform_without_a_text(run_input: object) -> None:
    with pytest.raises(PermanentError) as failure:
        text_transform.run({"transform": "uppercase"}, {}, run_input)
    assert failure.value.code == "TEXT_MISSING"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + input.n", 42),
        ("inputs['step-1'].items.filter(i, i.price > 1.5).map(i, i.name)", ["b"]),
        ("{'b': 1, 'a': [null, true, 2.5, 3u], 4: false}", {"4": False, "a": [None, True, 2.5, 3], "b": 1}),
        ("has(input.missing)", False),
        ("timestamp('2024-01-02T03:04:05Z')", "2024-01-02T03:04:05Z"),
        ("duration('90s')", "90s"),
        ("'a,b'.split(',')", ["a", "b"]),
        ("math.greatest(1, 5, 3)", 5),
        ("9007199254740991", 2**53 - 1),
    ],
)
def test_json_transform(expression: str, value: object) -> None:
    inputs = {"step-1": {"items": [{"name": "a", "price": 1.0}, {"name": "b", "price": 2.0}]}}
    output = json_transform.run({"expression": expression}, inputs, {"n": 41})
    assert output == {"value": value}
    assert json.loads(json.dumps(output, allow_nan=False)) == output
    jsonschema.validate(output, BUILTINS["JSON_TRANSFORM"].output_schema)


@pytest.mark.parametrize(
    ("expression", "code", "message"),
    [
        ("1 +", "EXPRESSION_INVALID", "1:4"),
        ("nobody.x", "EXPRESSION_INVALID", "nobody"),
        ("input.missing", "EXPRESSION_FAILED", "missing"),
        ("1 / 0", "EXPRESSION_FAILED", "zero"),
        ("9007199254740992", "INVALID_OUTPUT", "9007199254740992"),
        ("1.0 / 0.0", "INVALID_OUTPUT", "inf"),
        ("[b'raw']", "INVALID_OUTPUT", "bytearray"),
        ("type(1)", "INVALID_OUTPUT", "INT"),
    ],
)
def test_json_transform_failures(expression: str, code: str, message: str) -> None:
    with pytest.raises(PermanentError, match=message) as failure:
        json_transform.run({"expression": expression}, {}, {})
    assert failure.value.code == code


def test_json_transform_gives_up_on_endless_work() -> None:
    hundred = f"[{','.join('1' * 100)}]"
    expression = f"{hundred}.map(a, {hundred}.map(b, {hundred}.map(c, {hundred}.map(d, a))))"
    with pytest.raises(PermanentError, match="Iteration budget") as failure:
        json_transform.run({"expression": expression}, {}, {})
    assert failure.value.code == "EXPRESSION_FAILED"


def test_python_calls_main(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import math\ndef main(config, inputs):\n    print(inputs)\n    return {'n': math.floor(config['n'])}"
    assert python.run({"code": code, "n": 2.5}, {"a": 1}) == {"n": 2}
    assert capsys.readouterr().out == "{'a': 1}\n"


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("x = 1", "INVALID_CODE"),
        ("main = 3", "INVALID_CODE"),
        ("def main(config, inputs): return [1]", "INVALID_OUTPUT"),
        ("def main(config, inputs): pass", "INVALID_OUTPUT"),
    ],
)
def test_python_code_that_does_not_fit(code: str, failure: str) -> None:
    with pytest.raises(PermanentError) as raised:
        python.run({"code": code}, {})
    assert raised.value.code == failure


def test_python_runs_modules_of_functions_that_call_each_other() -> None:
    code = "def helper(n):\n    return n * 2\n\ndef main(config, inputs):\n    return {'n': helper(config['n'])}"
    assert python.run({"code": code, "n": 4}, {}) == {"n": 8}


def test_delay_returns_what_it_waited() -> None:
    output = delay.run({"seconds": 0.01})
    assert output == {"seconds": 0.01}
    jsonschema.validate(output, BUILTINS["DELAY"].output_schema)
