"""The slice of a run that a decision looks at, what a decision consists of, and which rows a wave needs loaded."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from towline_controlplane.engine.graph import Dag
from towline_controlplane.model import Attempt, Event, Run, Step, StepState


@dataclass(frozen=True, slots=True)
class Decision:
    """Rows as they are to be after a command. `ended` names the nodes whose edges are to be decided next."""

    run: Run
    steps: tuple[Step, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    events: tuple[Event, ...] = ()
    ended: tuple[str, ...] = ()


@dataclass(slots=True)
class View:
    """The run, its compiled DAG, and those of its rows that a command touches; `apply` moves it past a decision.

    `steps` holds what was loaded, which is seldom the whole run. `attempts` holds the newest attempt by node id.
    """

    dag: Dag
    run: Run
    run_input: object
    """The parsed input of the run, for expressions."""
    steps: dict[str, Step] = field(default_factory=dict[str, Step])
    attempts: dict[str, Attempt] = field(default_factory=dict[str, Attempt])
    outputs: dict[str, object] = field(default_factory=dict[str, object])
    """Parsed outputs of the succeeded nodes that expressions refer to, by node id."""

    def apply(self, decision: Decision) -> None:
        """Makes the decision's rows the current ones."""
        self.run = decision.run
        for step in decision.steps:
            if step.state is StepState.WAITING:  # what it gave before a retry of the run is no more
                self.outputs.pop(step.node_id, None)
        self.steps.update((step.node_id, step) for step in decision.steps)
        self.attempts.update((attempt.node_id, attempt) for attempt in decision.attempts)


def successors(dag: Dag, ended: Iterable[str]) -> set[str]:
    """Returns the nodes that the edges of `ended` lead to: the rows that Propagate needs."""
    return {dag.nodes[edge.target].id for node_id in ended for edge in dag.outgoing[dag.by_id[node_id]]}


def references(dag: Dag, ended: Iterable[str]) -> set[str]:
    """Returns the nodes that Propagate may read: those named by conditions of the edges and by configs behind them."""
    found: set[str] = set()
    for node_id in ended:
        for edge in dag.outgoing[dag.by_id[node_id]]:
            if edge.expression is not None:
                found |= edge.expression.references
            found |= dag.nodes[edge.target].config.references
    return found
