"""The rules of a workflow document beside its graph: its texts, the size of its values, the schema of its input."""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from towline_dag.json_bounds import MAX_DEPTH, violations
from towline_dag.schemas import wrong_input_schema
from towline_dag.texts import wrong_text
from towline_dag.violation import Violation

MAX_NAME_LENGTH: Final = 200
MAX_DESCRIPTION_LENGTH: Final = 4_000
MAX_DAG_BYTES: Final = 4 << 20
MAX_SCHEMA_BYTES: Final = 64 << 10
MAX_OUTPUT_BYTES: Final = 256 << 10
_MAX_VIOLATIONS: Final = 20
# The document, its list of nodes and each node lie around a config.
_OUTER_DEPTH: Final = 3


def wrong_texts(name: str | None, description: str) -> list[Violation]:
    """Returns what is wrong with the texts for people; a name of None is not to be changed."""
    wrong = [] if name is None else wrong_text(name, "name", 1, MAX_NAME_LENGTH)
    return [*wrong, *wrong_text(description, "description", 0, MAX_DESCRIPTION_LENGTH)]


def wrong_values(dag: Mapping[str, Any], path: str) -> list[Violation]:
    """Returns up to 20 values of a DAG's document that JSON cannot hold."""
    return list(islice(violations(dag, path, MAX_DEPTH + _OUTER_DEPTH), _MAX_VIOLATIONS))


def wrong_policies(document: Mapping[str, Any]) -> list[Violation]:
    """Returns what is wrong with the values of the policies, before anything of them is compiled."""
    wrong = [*wrong_input_schema(document.get("inputSchema", {}), "inputSchema")]
    wrong += violations(document.get("output"), "output")
    if wrong:
        return wrong
    for name, most in (("inputSchema", MAX_SCHEMA_BYTES), ("output", MAX_OUTPUT_BYTES)):
        if len(json.dumps(document.get(name), ensure_ascii=False, separators=(",", ":")).encode()) > most:
            wrong.append(Violation(name, f"is larger than {most >> 10} KiB"))
    return wrong
