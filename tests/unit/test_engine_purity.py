"""The engine decides, the rules of documents judge, and neither does anything else: their imports show it."""

import ast
from pathlib import Path

import pytest

import towline_controlplane.engine
import towline_dag

PURE = [
    path
    for package in (towline_controlplane.engine, towline_dag)
    for path in sorted(Path(package.__file__ or "").parent.glob("*.py"))
]
ALLOWED = {
    *("collections", "dataclasses", "datetime", "difflib", "enum", "functools", "hashlib", "itertools", "json"),
    *("math", "re", "types", "typing", "cel_expr_python", "jsonschema", "towline_controlplane", "towline_dag"),
}
OWN = {
    f"towline_controlplane.{name}"
    for name in (
        "engine",
        "model",
        "evidence",
        "errors",
        "frozen",
        "protocol_versions",
        "requirements",
        "schedule_records",
    )
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", PURE, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_a_module_imports_nothing_that_acts(path: Path) -> None:
    names = imported(path)
    assert {name.partition(".")[0] for name in names} <= ALLOWED
    own = {".".join(name.split(".")[:2]) for name in names if name.startswith("towline_controlplane")}
    assert own <= OWN


@pytest.mark.parametrize("path", PURE, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_a_module_calls_no_interpreter_and_opens_no_file(path: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & {"eval", "exec", "compile", "open", "__import__", "print", "input"} == set()


def test_the_check_sees_every_module() -> None:
    assert {"advance", "draft", "graph", "expressions"} <= {path.stem for path in PURE}
