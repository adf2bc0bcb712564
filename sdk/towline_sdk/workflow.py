"""Workflows written in Python: nodes, edges and conditions as plain objects, which become the JSON of the API.

    Workflow(
        name="greeting",
        nodes=[
            Node("shout", "TEXT_TRANSFORM", {"transform": "uppercase", "text": cel("input.name")}),
            Node("trim", "TEXT_TRANSFORM", {"transform": "trim"}),
        ],
        edges=[Edge("shout", "trim")],
    ).document()

Fields are those of a workflow file in snake_case; None is left out. Nothing here runs anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from towline_sdk.documents import Json, WorkflowDocument
from towline_sdk.validation import checked

Config = Mapping[str, Any]


def cel(expression: str) -> str:
    """Returns a config value that is the value of a CEL expression when the step starts."""
    return f"${{{{ {expression} }}}}"


@dataclass(frozen=True, slots=True)
class Condition:
    """When an edge is satisfied, decided once its source has ended."""

    type: Literal["ALWAYS", "ON_SUCCESS", "ON_FAILURE", "EXPRESSION"]
    expression: str | None = None


ALWAYS: Final = Condition("ALWAYS")
ON_SUCCESS: Final = Condition("ON_SUCCESS")
ON_FAILURE: Final = Condition("ON_FAILURE")


def when(expression: str) -> Condition:
    """Returns the condition that a CEL expression is true."""
    return Condition("EXPRESSION", expression)


@dataclass(frozen=True, slots=True)
class Edge:
    """An order between two nodes, named by their ids; without a condition the source must have SUCCEEDED."""

    source: str
    target: str
    condition: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """Limits of the attempts of a node."""

    max_attempts: int | None = None
    backoff_ms: int | None = None
    backoff_multiplier: float | None = None
    max_backoff_ms: int | None = None
    max_lost: int | None = None
    strategy: Literal["EXPONENTIAL", "FIXED"] | None = None
    retry_on: Sequence[str] | None = None
    memory_multiplier: float | None = None
    max_memory_mb: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLimits:
    """Limits of an attempt beyond its time and memory."""

    cpu_seconds: int | None = None
    processes: int | None = None
    open_files: int | None = None
    file_mb: int | None = None
    output_kb: int | None = None
    log_kb: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One call of a plugin: `type` names a built-in or a plugin."""

    id: str
    type: str
    config: Config = field(default_factory=dict[str, Any])
    _: KW_ONLY
    plugin_id: str | None = None
    plugin_version: str | None = None
    retry_config: RetryConfig | None = None
    join: Literal["ALL", "ANY", "ALL_DONE"] | None = None
    side_effects: Literal["NONE", "IDEMPOTENT", "UNSAFE"] | None = None
    timeout_ms: int | None = None
    memory_limit_mb: int | None = None
    labels: Mapping[str, str] | None = None
    display_name: str | None = None
    queue_timeout_ms: int | None = None
    min_sandbox: Literal["L0", "L1", "L2", "L3", "L4"] | None = None
    weight: int | None = None
    limits: NodeLimits | None = None
    secrets: Sequence[str] | None = None
    network: Literal["NONE", "FULL"] | None = None
    fetch_artifacts: bool | None = None


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` runs go at a time of those with an equal value of `key`, a CEL expression; else of all."""

    limit: int
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A workflow as a whole."""

    name: str
    nodes: Sequence[Node]
    edges: Sequence[Edge] = ()
    description: str | None = None
    input_schema: Mapping[str, Any] | None = None
    output: Any = None
    timeout_ms: int | None = None
    concurrency: Concurrency | None = None

    def to_json(self) -> dict[str, Json]:
        """Returns the document, as a workflow file or the body of `POST /api/workflows`."""
        said = _object(self)
        dag: dict[str, Json] = {"nodes": said.pop("nodes"), "edges": said.pop("edges")}
        return {**said, "dag": dag}

    def document(self) -> WorkflowDocument:
        """Returns what `client.workflows.create` takes; raises InvalidDocumentError that names each wrong place."""
        return checked(self.to_json())


_NAMES: Final[Mapping[tuple[type[Any], str], str]] = MappingProxyType(
    {(Edge, "source"): "from", (Edge, "target"): "to"}
)


def _object(value: Any) -> dict[str, Json]:
    given = {each.name: getattr(value, each.name) for each in fields(value)}
    kind = cast("type[Any]", type(value))
    return {_NAMES.get((kind, name), _camel(name)): _json(item) for name, item in given.items() if item is not None}


def _json(value: Any) -> Json:
    if is_dataclass(value):
        return _object(value)
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json(item) for item in cast("Sequence[Any]", value)]
    return cast("Json", value)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.capitalize() for each in others)
