"""When an edge or a join is satisfied, and what becomes of the step behind it. The two tables say all of it."""

import json
from collections.abc import Callable, Mapping

from towline_controlplane.engine.draft import Draft
from towline_controlplane.engine.nodes import Node
from towline_controlplane.engine.transitions import STEP_TERMINAL
from towline_controlplane.model import Failure, FailureClass, Step, StepState
from towline_dag.choices import ConditionType, Join
from towline_dag.expressions import ExpressionError
from towline_dag.graph import Edge

_SATISFYING: Mapping[ConditionType, frozenset[StepState]] = {
    ConditionType.ALWAYS: STEP_TERMINAL,
    ConditionType.ON_SUCCESS: frozenset({StepState.SUCCEEDED}),
    ConditionType.ON_FAILURE: frozenset({StepState.FAILED, StepState.TIMED_OUT}),
    ConditionType.EXPRESSION: STEP_TERMINAL - {StepState.SKIPPED},
}

_JOINS: Mapping[Join, Callable[[int, int], bool]] = {
    Join.ALL: lambda satisfied, incoming: satisfied == incoming,
    Join.ANY: lambda satisfied, incoming: satisfied > 0,
    Join.ALL_DONE: lambda satisfied, incoming: True,
}


def open_or_skip(draft: Draft, node_id: str) -> None:
    """Makes a step whose edges are all decided READY; SKIPPED if its join says so, FAILED if a condition went wrong."""
    step = draft.step(node_id)
    if step.error is not None:
        draft.end_step(node_id, StepState.FAILED, step.error)
        return
    incoming = draft.dag.in_degree[step.position]
    if incoming and not _JOINS[draft.node(node_id).join](step.satisfied_edges, incoming):
        draft.end_step(node_id, StepState.SKIPPED)
        return
    try:
        config = render_config(draft.node(node_id), draft)
    except ExpressionError as error:
        failure = Failure(FailureClass.PERMANENT, "EXPRESSION", f"its config cannot be rendered: {error}")
        draft.end_step(node_id, StepState.FAILED, failure)
        return
    draft.ready_step(node_id, config)


def render_config(node: Node, draft: Draft) -> str | None:
    """Returns the rendered config as JSON text, or None when it has no template; raises ExpressionError."""
    if node.config.is_constant:
        return None
    rendered = node.config.render(draft.scope(node.config.references))
    return json.dumps(rendered, ensure_ascii=False, separators=(",", ":"))


def decide_edge(draft: Draft, edge: Edge, source: Step) -> None:
    """Counts the edge of a source that has ended, and opens or skips its target if that was the last one."""
    target = draft.dag.nodes[edge.target].id
    step = draft.step(target)
    if step.state is not StepState.WAITING:
        return
    failure = step.error
    try:
        satisfied = _is_satisfied(draft, edge, source)
    except ExpressionError as error:
        # The step fails when its other edges are decided too: what follows it may read how their sources ended.
        satisfied = False
        message = f"the condition of the edge from {source.node_id!r} cannot be evaluated: {error}"
        failure = failure or Failure(FailureClass.PERMANENT, "EXPRESSION", message)
    step = draft.change(
        target,
        open_edges=step.open_edges - 1,
        satisfied_edges=step.satisfied_edges + satisfied,
        error=failure,
    )
    if step.open_edges == 0:
        open_or_skip(draft, target)


def _is_satisfied(draft: Draft, edge: Edge, source: Step) -> bool:
    if source.state not in _SATISFYING[edge.condition]:
        return False
    if edge.expression is None:
        return True
    return edge.expression.evaluate_condition(draft.scope(edge.expression.references))
