"""What holds between a step and the ends of the edges that lead to it (I5). Pure.

The tables say again what the engine's say: a judge that shared them would find nothing when they change.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from towline_controlplane.audit.findings import Findings, RunRows
from towline_controlplane.engine.transitions import STEP_TERMINAL
from towline_controlplane.model import Step, StepState
from towline_dag.choices import ConditionType, Join
from towline_dag.expressions import ExpressionError, Scope, run_in_scope
from towline_dag.graph import Edge

_SATISFIED_BY: Mapping[ConditionType, frozenset[StepState]] = {
    ConditionType.ALWAYS: STEP_TERMINAL,
    ConditionType.ON_SUCCESS: frozenset({StepState.SUCCEEDED}),
    ConditionType.ON_FAILURE: frozenset({StepState.FAILED, StepState.TIMED_OUT}),
    ConditionType.EXPRESSION: STEP_TERMINAL - {StepState.SKIPPED},
}
_RUNS: Mapping[Join, Callable[[int, int], bool]] = {
    Join.ALL: lambda satisfied, edges: satisfied == edges,
    Join.ANY: lambda satisfied, edges: satisfied > 0,
    Join.ALL_DONE: lambda satisfied, edges: True,
}


def check_edges(rows: RunRows, findings: Findings) -> None:
    """Checks the counters of every step against its sources, and the step against what its join makes of them."""
    incoming: defaultdict[int, list[Edge]] = defaultdict(list)
    for edge in rows.dag.edges:
        incoming[edge.target].append(edge)
    for step in rows.steps.values():
        _check_step(rows, step, incoming[step.position], findings)


def _check_step(rows: RunRows, step: Step, edges: Sequence[Edge], findings: Findings) -> None:
    ended = [edge for edge in edges if _source(rows, edge).state in STEP_TERMINAL]
    still_open = len(edges) - len(ended)
    if step.state is StepState.CANCELLED and step.open_edges > 0:  # its later edges were not counted any more
        findings.at_least("I5", "open_edges", still_open, step.open_edges, step.node_id)
        return
    findings.equal("I5", "open_edges", still_open, step.open_edges, step.node_id)
    if step.state is not StepState.WAITING:
        findings.equal("I5", f"sources still open while {step.state}", 0, still_open, step.node_id)
    if any(_reads_blob(rows, edge) for edge in ended):
        return
    verdicts = [_is_satisfied(rows, edge) for edge in ended]
    findings.equal("I5", "satisfied_edges", verdicts.count(True), step.satisfied_edges, step.node_id)
    if not still_open and step.state is not StepState.WAITING:
        _check_join(rows, step, verdicts, findings)


def _check_join(rows: RunRows, step: Step, verdicts: Sequence[bool | None], findings: Findings) -> None:
    if None in verdicts:
        findings.equal(
            "I5", "a condition of the step cannot be evaluated, so it is", "FAILED", step.state, step.node_id
        )
        return
    join = rows.dag.nodes[step.position].join
    runs = not verdicts or _RUNS[join](verdicts.count(True), len(verdicts))
    what = f"{verdicts.count(True)} of {len(verdicts)} edges hold, join {join}: skipped"
    findings.equal("I5", what, not runs, step.state is StepState.SKIPPED, step.node_id)


def _is_satisfied(rows: RunRows, edge: Edge) -> bool | None:
    """Returns whether an edge whose source has ended holds, None if its condition cannot be evaluated."""
    if _source(rows, edge).state not in _SATISFIED_BY[edge.condition]:
        return False
    if edge.expression is None:
        return True
    nodes = {
        node_id: {"state": rows.steps[node_id].state.value, "output": rows.outputs.get(node_id)}
        for node_id in edge.expression.references
    }
    run = run_in_scope(rows.run.id, rows.run.workflow_id, rows.run.scheduled_time)
    withheld = frozenset(node_id for node_id in nodes if rows.steps[node_id].output_digest is not None)
    try:
        return edge.expression.evaluate_condition(Scope(rows.run_input, run, nodes, withheld))
    except ExpressionError:
        return None


def _reads_blob(rows: RunRows, edge: Edge) -> bool:
    """Tells whether the condition of an edge reads an output that is not among the rows."""
    references = edge.expression.references if edge.expression else frozenset[str]()
    return any(rows.steps[node_id].output_digest is not None for node_id in references - rows.outputs.keys())


def _source(rows: RunRows, edge: Edge) -> Step:
    return rows.steps[rows.dag.nodes[edge.source].id]
