"""What does not fit a JSON Schema is told in the words of JSON."""

from typing import Any

import pytest

from towline_controlplane.errors import Violation
from towline_dag.schemas import wrong_input


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": "object"}, None, 'must be of type "object"'),
        ({"type": ["string", "null"]}, 3, 'must be of type ["string", "null"]'),
        ({"enum": ["ä", None, True]}, "b", 'must be one of ["ä", null, true]'),
        ({"const": {"a": None}}, 1, 'must be {"a": null}'),
        ({"anyOf": [{"type": "string"}]}, None, "fits none of the schemas of anyOf"),
    ],
    ids=["type", "types", "enum", "const", "anyOf"],
)
def test_a_value_that_does_not_fit_is_told_in_json(schema: dict[str, Any], value: object, said: str) -> None:
    assert wrong_input(schema, value, "input") == [Violation("input", said)]
