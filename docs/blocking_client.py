"""Writes `sdk/towline_sdk/blocking.pyi`: the types of the blocking client, from the calls of the asynchronous one.

Every public method keeps its signature and docstring; `async` goes, and an `AsyncIterator` becomes an `Iterator`.
"""

import ast
import inspect
from types import ModuleType
from typing import Final

from towline_sdk import (
    agent_calls,
    artifact_calls,
    audit_calls,
    auth_calls,
    plugin_calls,
    run_calls,
    schedule_calls,
    secret_calls,
    user_calls,
    workflow_calls,
)

MODULES: Final = (
    agent_calls,
    artifact_calls,
    audit_calls,
    auth_calls,
    plugin_calls,
    run_calls,
    schedule_calls,
    secret_calls,
    user_calls,
    workflow_calls,
)
SUFFIXES: Final = ("Calls", "StartedRun")
HEAD: Final = '''"""The types of the blocking client. Generated from the calls of `Client` by `make docs`."""

'''
CLIENT: Final = '''
class BlockingClient:
    """A connection to one control plane, as `Client`; use it as `with BlockingClient(address, token) as client`."""

{attributes}
    def __init__(
        self, address: str, token: str = ..., *, ca_file: Path | None = ..., deadline_seconds: float = ...
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None:
        """Ends the connection, every call on it and the thread. Idempotent."""
'''


def stub() -> str:
    """Returns the text of the stub."""
    classes = [each for module in MODULES for each in _classes(module)]
    attributes = "".join(f"    {_attribute(each.name)}: {each.name}\n" for each in classes if each.name != "StartedRun")
    body = "\n\n".join(map(ast.unparse, classes)) + "\n" + CLIENT.format(attributes=attributes)
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    return HEAD + "\n".join(_imports(used)) + "\n\n" + body


def _attribute(name: str) -> str:
    word = name.removesuffix("Calls").lower()
    return word if word in ("audit", "auth") else f"{word}s"


def _classes(module: ModuleType) -> list[ast.ClassDef]:
    tree = ast.parse(inspect.getsource(module))
    found = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name.endswith(SUFFIXES)]
    return [_blocking(each, _aliases(tree)) for each in found]


def _blocking(kind: ast.ClassDef, aliases: dict[str, str]) -> ast.ClassDef:
    methods = [each for each in kind.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    kept: list[ast.stmt] = [_signature(each) for each in methods if not each.name.startswith("_")]
    doc = [each for each in kind.body[:1] if isinstance(each, ast.Expr)]
    made = ast.ClassDef(kind.name, bases=[], keywords=[], body=[*doc, *kept], decorator_list=[])
    return _Renamed(aliases).visit(ast.fix_missing_locations(made))


def _signature(method: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.FunctionDef:
    arguments = method.args
    arguments.defaults = [ast.Constant(...) for _ in arguments.defaults]
    arguments.kw_defaults = [each and ast.Constant(...) for each in arguments.kw_defaults]
    return ast.FunctionDef(
        method.name, arguments, method.body[:1], decorator_list=method.decorator_list, returns=method.returns
    )


class _Renamed(ast.NodeTransformer):
    """Gives the modules of the contract their own names again, and iterators the kind that blocks."""

    def __init__(self, aliases: dict[str, str]) -> None:
        self._names = {**aliases, "AsyncIterator": "Iterator"}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Renames."""
        return ast.Name(self._names.get(node.id, node.id), node.ctx)


def _aliases(tree: ast.Module) -> dict[str, str]:
    names = (each for node in tree.body if isinstance(node, ast.ImportFrom) for each in node.names)
    return {each.asname: each.name for each in names if each.asname}


def _imports(used: set[str]) -> list[str]:
    known = {"Self": "typing", "TracebackType": "types", "Iterator": "collections.abc", "Path": "pathlib"}
    for module in MODULES:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ImportFrom):
                known |= {each.name: node.module or "" for each in node.names}
            elif isinstance(node, ast.ClassDef) and not node.name.endswith(SUFFIXES):
                known[node.name] = module.__name__
    by_module: dict[str, list[str]] = {}
    for name in sorted(used & known.keys()):
        by_module.setdefault(known[name], []).append(name)
    return [f"from {module} import {', '.join(names)}" for module, names in sorted(by_module.items())]
