"""The examples as they lie in this folder: workflow, input, expected result and plugins of each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
NAMES = ("text-transform", "log-analysis", "word-count", "report")


@dataclass(frozen=True, slots=True)
class Example:
    """One folder; `expected` holds the run's output and what must be true of its steps."""

    name: str
    workflow: Mapping[str, Any]
    run_input: Mapping[str, Any]
    expected: Mapping[str, Any]
    plugins: tuple[Path, ...]


def load(name: str) -> Example:
    """Returns the example in the folder of this name."""
    folder = ROOT / name
    workflow, run_input, expected = (
        json.loads((folder / f"{part}.json").read_bytes()) for part in ("workflow", "input", "expected")
    )
    plugins = tuple(sorted(path.parent for path in folder.glob("plugins/*/plugin.toml")))
    return Example(name, workflow, run_input, expected, plugins)


def deviations(expected: Mapping[str, Any], run: Mapping[str, Any], steps: list[dict[str, Any]]) -> list[str]:
    """Says what differs from the expected result, in words; empty when nothing does."""
    found: list[str] = []
    if run["state"] != "SUCCEEDED":
        found.append(f"the run ended {run['state']}: {run.get('error')}")
    if run.get("output") != expected["output"]:
        found.append(f"the output is {json.dumps(run.get('output'))}, expected {json.dumps(expected['output'])}")
    by_node = {step["nodeId"]: step for step in steps}
    for node_id, facts in expected["steps"].items():
        seen = {name: by_node.get(node_id, {}).get(name) for name in facts}
        if seen != facts:
            found.append(f"step {node_id} is {seen}, expected {facts}")
    return found
