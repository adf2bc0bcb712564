"""The DAG of a workflow version, and the one way to it: from its document, or to all that is wrong with that.

Nodes and edges are numbered as in the document; everything that the engine asks of them is answered by index.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from towline_dag import cycles, limits
from towline_dag.choices import ConditionType
from towline_dag.expressions import ExpressionError, Program, compile_condition
from towline_dag.fields import Fields, Violations
from towline_dag.nodes import Node, read_node
from towline_dag.policies import Policies, read_policies
from towline_dag.templates import Template
from towline_dag.violation import InvalidDocument

NodeT = TypeVar("NodeT", bound=Node)
PlacedT = TypeVar("PlacedT", bound=Node)


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """An order between two nodes, which it names by index."""

    index: int
    source: int
    target: int
    condition: ConditionType
    expression: Program | None


@dataclass(frozen=True, slots=True, eq=False)
class Dag(Generic[NodeT]):
    """A graph without cycles."""

    nodes: tuple[NodeT, ...]
    edges: tuple[Edge, ...]
    outgoing: tuple[tuple[Edge, ...], ...]
    """Edges by the index of their source."""
    incoming: tuple[tuple[int, ...], ...]
    """Indices of the sources by the index of the target, in the order of the edges."""
    in_degree: tuple[int, ...]
    by_id: Mapping[str, int]
    handles_failure: tuple[bool, ...]
    """Whether a node has an outgoing ON_FAILURE edge."""
    policies: Policies
    referenced: frozenset[str]
    """The nodes that some condition or config names."""

    def with_nodes(self, nodes: Sequence[PlacedT]) -> "Dag[PlacedT]":
        """Returns the same graph over what somebody made of its nodes, in their order."""
        return Dag(
            nodes=tuple(nodes),
            edges=self.edges,
            outgoing=self.outgoing,
            incoming=self.incoming,
            in_degree=self.in_degree,
            by_id=self.by_id,
            handles_failure=self.handles_failure,
            policies=self.policies,
            referenced=self.referenced,
        )


@dataclass(frozen=True, slots=True)
class _Use:
    """Where nodes are named: in a config, which is rendered before `node`, or in a condition, decided after it."""

    place: str
    expressions: Template | Program
    node: int
    after: bool

    @property
    def references(self) -> frozenset[str]:
        """The nodes that it names."""
        return self.expressions.references


def read_dag(document: Mapping[str, object]) -> Dag[Node]:
    """Returns the DAG of a document; raises InvalidDocument with all that is wrong.

    A document is the JSON shape of `towline.v1.Dag`, beside it the policies of its runs: `output`, `timeoutMs`,
    `concurrency` as in `towline.v1.Workflow`.
    """
    violations = Violations()
    dag = Fields(document, "dag", violations)
    nodes = _nodes(dag)
    by_id = _by_id(nodes, violations)
    edges = _edges(dag, nodes, by_id)
    policies = read_policies(Fields(document, "", violations), by_id)
    assembled = _assemble(nodes, edges, by_id, policies)
    _check_order(assembled, violations)
    if violations:
        raise InvalidDocument(violations.listed())
    return assembled


def _nodes(dag: Fields) -> list[Node]:
    if not dag.raw("nodes"):
        dag.refuse("nodes", "must have at least one node")
    nodes: list[Node] = []
    expressions = 0
    for index, fields in enumerate(_bounded(dag, "nodes", limits.MAX_NODES)):
        nodes.append(read_node(fields, index))
        expressions += len(nodes[-1].config.programs)
        if expressions > limits.MAX_EXPRESSIONS:
            message = f"have more than {limits.MAX_EXPRESSIONS} expressions in their configs"
            raise InvalidDocument.of("dag.nodes", message)
    return nodes


def _bounded(dag: Fields, name: str, most: int) -> Sequence[Fields]:
    entries = dag.objects(name)
    if len(entries) > most:
        raise InvalidDocument.of(f"dag.{name}", f"has {len(entries)} entries; the limit is {most}")
    return entries


def _by_id(nodes: Sequence[Node], violations: Violations) -> dict[str, int]:
    by_id: dict[str, int] = {}
    for node in nodes:
        first = by_id.setdefault(node.id, node.index)
        if node.id and first != node.index:
            violations.add(f"dag.nodes[{node.index}].id", f"{node.id!r} is the id of dag.nodes[{first}] already")
    by_id.pop("", None)
    return by_id


def _edges(dag: Fields, nodes: Sequence[Node], by_id: Mapping[str, int]) -> list[Edge]:
    """Returns the edges between two nodes that exist, each pair once."""
    edges: dict[tuple[int, int], Edge] = {}
    for index, fields in enumerate(_bounded(dag, "edges", limits.MAX_EDGES)):
        condition, expression = _condition(fields.object("condition"))
        source, target = _end(fields, "from", by_id), _end(fields, "to", by_id)
        if source is None or target is None:
            continue
        if source == target:
            fields.refuse("to", f"leads from {nodes[source].id!r} to itself")
        elif first := edges.get((source, target)):
            fields.refuse("to", f"{nodes[source].id!r} → {nodes[target].id!r} is dag.edges[{first.index}] already")
        else:
            edges[source, target] = Edge(index, source, target, condition, expression)
    return list(edges.values())


def _end(edge: Fields, name: str, by_id: Mapping[str, int]) -> int | None:
    node_id = edge.raw(name)
    if not node_id or not isinstance(node_id, str):
        edge.refuse(name, "must be the id of a node")
        return None
    if node_id not in by_id:
        edge.refuse(name, f"{node_id[:200]!r} is not a node{edge.violations.suggestion(node_id, by_id)}")
    return by_id.get(node_id)


def _condition(fields: Fields) -> tuple[ConditionType, Program | None]:
    source = fields.raw("expression") or ""
    kind = fields.choice("type", ConditionType.ON_SUCCESS)
    if kind is not ConditionType.EXPRESSION:
        if source:
            fields.refuse("expression", "is only for the type EXPRESSION")
        return kind, None
    if not isinstance(source, str) or not source.strip():
        fields.refuse("expression", "is missing: the type is EXPRESSION")
        return kind, None
    try:
        return kind, compile_condition(source)
    except ExpressionError as error:
        fields.refuse("expression", error.message)
        return kind, None


def _assemble(nodes: Sequence[Node], edges: Sequence[Edge], by_id: Mapping[str, int], policies: Policies) -> Dag[Node]:
    outgoing: list[list[Edge]] = [[] for _ in nodes]
    incoming: list[list[int]] = [[] for _ in nodes]
    for edge in edges:
        outgoing[edge.source].append(edge)
        incoming[edge.target].append(edge.source)
    handled = {edge.source for edge in edges if edge.condition is ConditionType.ON_FAILURE}
    return Dag(
        nodes=tuple(nodes),
        edges=tuple(edges),
        outgoing=tuple(map(tuple, outgoing)),
        incoming=tuple(map(tuple, incoming)),
        in_degree=tuple(map(len, incoming)),
        by_id=by_id,
        handles_failure=tuple(node.index in handled for node in nodes),
        policies=policies,
        referenced=_referenced(nodes, edges),
    )


def _referenced(nodes: Sequence[Node], edges: Sequence[Edge]) -> frozenset[str]:
    by_config = (name for node in nodes for name in node.config.references)
    by_condition = (name for edge in edges if edge.expression for name in edge.expression.references)
    return frozenset({*by_config, *by_condition})


def _check_order(dag: Dag[Node], violations: Violations) -> None:
    successors = [[edge.target for edge in edges] for edges in dag.outgoing]
    order = cycles.topological_order(successors)
    if len(order) < len(dag.nodes):
        for cycle in cycles.find_cycles(successors, limits.MAX_CYCLES):
            _refuse_cycle(dag, cycle, violations)
    uses = list(_uses(dag))
    for use in uses:
        for name in sorted(use.references - dag.by_id.keys()):
            where = use.expressions.position(name)
            violations.add(use.place, f"{where}: {name!r} is not a node{violations.suggestion(name, dag.by_id)}")
    # The ancestors in a graph with something wrong in it are not those that its author means.
    if uses and not violations:
        _check_ended(dag, uses, _ancestors(successors, order), violations)


def _check_ended(dag: Dag[Node], uses: Sequence[_Use], ancestors: Sequence[int], violations: Violations) -> None:
    """Notes expressions that read a node which need not have ended when they are evaluated."""
    for use in uses:
        ended = ancestors[use.node] | (use.after << use.node)
        for name in sorted(use.references):
            if not ended >> dag.by_id[name] & 1:
                when = f"{dag.nodes[use.node].id!r} {'ends' if use.after else 'begins'}"
                message = f"{name!r} need not have ended when {when}: no path leads from it to there"
                violations.add(use.place, f"{use.expressions.position(name)}: {message}")


def _uses(dag: Dag[Node]) -> Iterator[_Use]:
    for node in dag.nodes:
        if node.config.references:
            yield _Use(f"dag.nodes[{node.index}].config", node.config, node.index, after=False)
    for edge in dag.edges:
        if edge.expression and edge.expression.references:
            place = f"dag.edges[{edge.index}].condition.expression"
            yield _Use(place, edge.expression, edge.source, after=True)


def _ancestors(successors: cycles.Successors, order: Sequence[int]) -> list[int]:
    """Returns for each node the set of the nodes before it, as the bits of an integer."""
    before = [0] * len(order)
    for node in order:
        with_node = before[node] | 1 << node
        for target in successors[node]:
            before[target] |= with_node
    return before


def _refuse_cycle(dag: Dag[Node], cycle: Sequence[int], violations: Violations) -> None:
    closing = next(edge for edge in dag.outgoing[cycle[-1]] if edge.target == cycle[0])
    names = [dag.nodes[index].id for index in (*cycle, cycle[0])]
    if len(names) > limits.MAX_NAMED_IN_CYCLE:
        left_out = len(names) - limits.MAX_NAMED_IN_CYCLE
        names[-left_out - 2 : -2] = [f"({left_out} more)"]
    violations.add(f"dag.edges[{closing.index}]", f"closes a cycle: {' → '.join(names)}")
