"""Which steps of a run that did not succeed run again when it is retried."""

from collections.abc import Mapping

from towline_controlplane.engine.graph import Dag
from towline_controlplane.model import Step, StepState


def failed_nodes(dag: Dag, steps: Mapping[str, Step]) -> list[int]:
    """Returns the indices of the nodes whose end kept the run from success."""
    return [node.index for node in dag.nodes if _is_failed(dag, steps[node.id])]


def nodes_to_rerun(dag: Dag, steps: Mapping[str, Step]) -> dict[int, None]:
    """Returns the failed nodes and all behind them in the order of the DAG: what they decided is to be decided anew."""
    reached = set(failed_nodes(dag, steps))
    front = list(reached)
    while front:
        for edge in dag.outgoing[front.pop()]:
            if edge.target not in reached:
                reached.add(edge.target)
                front.append(edge.target)
    return dict.fromkeys(sorted(reached))


def _is_failed(dag: Dag, step: Step) -> bool:
    if step.state is StepState.CANCELLED:
        return True
    return step.state in (StepState.FAILED, StepState.TIMED_OUT) and not dag.handles_failure[step.position]
