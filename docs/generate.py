"""Writes what is derived from code (`make docs`): the states, the settings, the types of the blocking client."""

import ast
import importlib
import inspect
import itertools
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import blocking_client
from pydantic_settings import BaseSettings

from towline_controlplane.engine import transitions

_RETRIES: Mapping[str, Mapping[Any, frozenset[Any]]] = {
    "run": transitions.RUN_RETRY,
    "step, if it failed or lies behind one that did": transitions.STEP_RETRY,
}
State = TypeVar("State", bound=StrEnum)
DOCS = Path(__file__).resolve().parent
PROCESSES = {
    "towline controlplane": "towline_controlplane.settings",
    "towline gateway": "towline_gateway.settings",
    "towline agent run": "towline_agent.settings",
}

CLIENT = """
## `towline`, the command line

| variable | default | meaning |
|---|---|---|
| `TOWLINE_CONTEXT` |  | Context to use instead of the current one; the option `--context` beats it. |
| `TOWLINE_SERVER` | `127.0.0.1:50051` | The control plane, `https://` before it for TLS; replicas with commas. |
| `TOWLINE_TLS_CA` | the system's roots | Certificates to verify the control plane with. |
| `TOWLINE_TOKEN` |  | Access token or API key to use instead of the one that `towline login` stored. |
| `TOWLINE_CONFIG_DIR` | `~/.config/towline` | Folder of the contexts and tokens; also in `XDG_CONFIG_HOME`. |
| `NO_COLOR` |  | Anything turns colours off; they are off anyway where output is no terminal. |
"""


def documents() -> dict[Path, str]:
    """Returns the text of each derived document by its path."""
    return {
        DOCS / "states.md": states(),
        DOCS / "configuration.md": configuration(),
        DOCS.parent / "sdk/towline_sdk/blocking.pyi": blocking_client.stub(),
    }


def states() -> str:
    """Returns the transition tables as diagrams."""
    diagrams = {
        "Run": diagram(transitions.RUN),
        "Step": diagram(transitions.STEP),
        "Attempt": diagram(transitions.ATTEMPT),
    }
    parts = ["# States\n\nGenerated from `engine/transitions.py` by `make docs`.\n"]
    retries = "".join(f"- {kind}: {changes(table)}\n" for kind, table in _RETRIES.items())
    parts += [f"\n## {name}\n\n```mermaid\n{drawn}```\n" for name, drawn in diagrams.items()]
    parts.append(f"\n## Retry of a run\n\nThe only way out of an end, for a run that did not succeed.\n\n{retries}")
    return "".join(parts)


def changes(table: Mapping[State, frozenset[State]]) -> str:
    """Returns transitions as a line of text."""
    return ", ".join(f"`{old} → {new}`" for old, after in table.items() for new in sorted(after))


def diagram(table: Mapping[State, frozenset[State]]) -> str:
    """Returns a mermaid state diagram: the first state begins, states without successors end."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table))}"]
    for state, successors in table.items():
        lines += [f"    {state} --> {successor}" for successor in table if successor in successors]
        lines += [] if successors else [f"    {state} --> [*]"]
    return "\n".join(lines) + "\n"


def configuration() -> str:
    """Returns every environment variable of every process with its default and meaning."""
    parts = [
        "# Configuration\n\nGenerated from the settings classes by `make docs`. Every process reads its environment "
        "once, at start. `towline up` sets what it needs itself.\n"
    ]
    for process, module in PROCESSES.items():
        parts.append(f"\n## `{process}`\n\n| variable | default | meaning |\n|---|---|---|\n")
        parts += rows(importlib.import_module(module).Settings)
    parts.append(CLIENT)
    return "".join(parts)


def rows(settings: type[BaseSettings]) -> list[str]:
    """Returns a table row for each field; its description, else the docstring under it, is its meaning."""
    docstrings = field_docstrings(settings)
    return [
        f"| `{field.validation_alias}` | {shown(field.default)} | {field.description or docstrings[name]} |\n"
        for name, field in settings.model_fields.items()
    ]


def shown(default: object) -> str:
    """Returns a default as a reader wants to see it; secrets and computed ones not at all."""
    text = str(default)
    return "" if text in {"", "None", "PydanticUndefined", "**********"} else f"`{text}`"


def field_docstrings(settings: type[BaseSettings]) -> dict[str, str]:
    """Returns the docstrings under the fields of a class and of those that it extends."""
    found: dict[str, str] = {}
    for kind in settings.__mro__[: settings.__mro__.index(BaseSettings)]:
        body = ast.parse(inspect.getsource(kind)).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in itertools.pairwise(body.body):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
                case _:
                    continue
    return found


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
