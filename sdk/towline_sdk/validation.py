"""Whether a workflow can be created, told without a server by the rules that the control plane has (`towline_dag`).

What only an installation knows stays open: whether a plugin or a secret exists, what a plugin's schema says, and the
maxima that its operator has set. Needs the extra `sdk`, for expressions and schemas.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from towline_dag.graph import read_dag
from towline_dag.schemas import wrong_config
from towline_dag.violation import InvalidDocument
from towline_dag.workflows import wrong_policies, wrong_texts, wrong_values
from towline_plugins.catalog import BUILTINS
from towline_sdk.documents import Json, WorkflowDocument, parse_workflow
from towline_sdk.errors import InvalidDocumentError, Violation

_DAG: Final = "dag"


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a document, and which plugins have to be there for it to be right."""

    wrong: tuple[Violation, ...]
    plugins: tuple[str, ...]


def checked(document: Json) -> WorkflowDocument:
    """Returns what a workflow document says; raises InvalidDocumentError that names each wrong place."""
    if wrong := examine(document).wrong:
        raise InvalidDocumentError("the workflow is not valid", reason="INVALID_DAG", violations=wrong)
    return parse_workflow(document)


def examine(document: Json) -> Findings:
    """Returns everything that can be said of `{name, description, dag, …}`, or of a bare `{nodes, edges}`."""
    wrong = _wrong_form(document)
    if not isinstance(document, dict):
        return Findings(tuple(wrong), ())
    bare = _DAG not in document
    whole: dict[str, Any] = {_DAG: document} if bare else document
    if not wrong:
        wrong.extend(_unlike(_wrong_values(whole), bare=bare))
    if not wrong:
        wrong.extend(_unlike([*_wrong_graph(whole), *_wrong_configs(whole)], bare=bare))
    else:
        named = {each.field for each in wrong}
        wrong.extend(each for each in _unlike(_wrong_graph(whole), bare=bare) if each.field not in named)
    return Findings(tuple(wrong), tuple(_plugins(whole)))


def _wrong_form(document: Json) -> list[Violation]:
    try:
        parse_workflow(document)
    except InvalidDocumentError as refusal:
        return list(refusal.violations) or [Violation("", refusal.message)]
    return []


def _wrong_values(whole: Mapping[str, Any]) -> list[Violation]:
    texts = wrong_texts(whole.get("name"), whole.get("description", ""))
    return [*texts, *wrong_values(whole[_DAG], _DAG), *wrong_policies(whole)]


def _wrong_graph(whole: Mapping[str, Any]) -> list[Violation]:
    dag: object = whole[_DAG]
    graph = cast("dict[str, object]", dag) if isinstance(dag, dict) else {}
    policies = {key: value for key, value in whole.items() if key != _DAG}
    try:
        read_dag({**policies, "nodes": graph.get("nodes"), "edges": graph.get("edges")})
    except InvalidDocument as refusal:
        return list(refusal.violations)
    return []


def _wrong_configs(whole: Mapping[str, Any]) -> Iterator[Violation]:
    for index, node in enumerate(whole[_DAG].get("nodes", [])):
        if builtin := BUILTINS.get(node.get("type", "")):
            yield from wrong_config(builtin.config_schema, node.get("config", {}), f"{_DAG}.nodes[{index}].config")


def _plugins(whole: Mapping[str, Any]) -> list[str]:
    dag: object = whole[_DAG]
    nodes: object = cast("dict[str, object]", dag).get("nodes") if isinstance(dag, dict) else None
    items = cast("list[Any]", nodes) if isinstance(nodes, list) else []
    written = (cast("dict[str, Any]", each) for each in items if isinstance(each, dict))
    named = (str(each.get("type") or each.get("pluginId") or "") for each in written)
    return sorted({name for name in named if name and name not in BUILTINS})


def _unlike(violations: list[Violation], *, bare: bool) -> list[Violation]:
    """Returns the violations with the places that the document has: a bare DAG is not below `dag`."""
    if not bare:
        return violations
    return [Violation(each.field.removeprefix(_DAG).removeprefix("."), each.message) for each in violations]
