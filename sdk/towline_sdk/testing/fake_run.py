"""A run of the fake control plane: one thread that calls Python functions in the order of the DAG.

Conditions, joins, templates and outputs mean what they mean to the real one; a plugin is a function that takes
`config`, `inputs`, `input` or `log` by name. There are no agents, queues or waits, and steps do not overlap.
"""

import hashlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from towline.v1.run_pb2 import Event, Failure, LogLine, Run, Step
from towline_dag.choices import ConditionType, Join
from towline_dag.cycles import topological_order
from towline_dag.expressions import ExpressionError, Scope
from towline_dag.graph import Dag
from towline_dag.nodes import Node
from towline_sdk.documents import Json, parse_value, plain_value
from towline_sdk.plugin import PermanentError, TransientError

Plugins: TypeAlias = Mapping[str, Callable[..., Any]]

ENDED: Final = frozenset({Run.SUCCEEDED, Run.FAILED, Run.CANCELLED, Run.TIMED_OUT})
_SATISFYING: Final[Mapping[ConditionType, frozenset[Step.State]]] = MappingProxyType(
    {
        ConditionType.ALWAYS: frozenset({Step.SUCCEEDED, Step.FAILED, Step.SKIPPED, Step.CANCELLED}),
        ConditionType.ON_SUCCESS: frozenset({Step.SUCCEEDED}),
        ConditionType.ON_FAILURE: frozenset({Step.FAILED}),
        ConditionType.EXPRESSION: frozenset({Step.SUCCEEDED, Step.FAILED, Step.CANCELLED}),
    }
)
_JOINS: Final[Mapping[Join, Callable[[list[bool]], bool]]] = MappingProxyType(
    {Join.ALL: all, Join.ANY: lambda satisfied: any(satisfied) or not satisfied, Join.ALL_DONE: lambda satisfied: True}
)
_STEP_ENDED: Final = MappingProxyType(
    {
        Step.SUCCEEDED: Event.STEP_SUCCEEDED,
        Step.FAILED: Event.STEP_FAILED,
        Step.SKIPPED: Event.STEP_SKIPPED,
        Step.CANCELLED: Event.STEP_CANCELLED,
    }
)
_RUN_ENDED: Final = MappingProxyType(
    {Run.SUCCEEDED: Event.RUN_SUCCEEDED, Run.FAILED: Event.RUN_FAILED, Run.CANCELLED: Event.RUN_CANCELLED}
)


class FakeRun:
    """One run with its steps, history and log lines, which whoever follows it is told of as they come."""

    def __init__(self, run: Run, dag: Dag[Node], plugins: Plugins) -> None:
        self.run = run
        self.steps = {node.id: Step(node_id=node.id, type=node.type, state=Step.WAITING) for node in dag.nodes}
        self._dag = dag
        self._plugins = plugins
        self._events: list[Event] = []
        self._lines: list[LogLine] = []
        self._changed = threading.Condition()
        for step in self.steps.values():
            step.run_id = run.id
        self._tell(Event.RUN_CREATED)
        self._thread = threading.Thread(target=self._execute, name=f"run {run.id}", daemon=True)

    def start(self) -> None:
        """Begins to call the plugins."""
        self._thread.start()

    def wait(self) -> None:
        """Returns once no plugin runs any more."""
        self._thread.join()

    def events(self, start: int) -> Iterator[tuple[int, Event]]:
        """Yields the history from an index on, until the run has ended."""
        return self._follow(self._events, start, follow=True)

    def lines(self, start: int, *, follow: bool) -> Iterator[tuple[int, LogLine]]:
        """Yields log lines from an index on; with `follow` until the run has ended."""
        return self._follow(self._lines, start, follow=follow)

    def change(self, state: Run.State, event: Event.Type) -> None:
        """Pauses or resumes the run."""
        with self._changed:
            self.run.state = state
        self._tell(event)

    def cancel(self) -> None:
        """Lets no further step begin; what runs is not interrupted."""
        with self._changed:
            self.run.cancel_requested = True
        self._tell(Event.RUN_CANCEL_REQUESTED)

    def _follow(self, kept: list[Any], at: int, *, follow: bool) -> Iterator[tuple[int, Any]]:
        while True:
            with self._changed:
                while follow and at >= len(kept) and self.run.state not in ENDED:
                    self._changed.wait()
                if at >= len(kept):
                    return
                item = kept[at]
            yield at, item
            at += 1

    def _execute(self) -> None:
        self.run.start_time.GetCurrentTime()
        self._move_run(Run.RUNNING, Event.RUN_STARTED)
        successors = [[edge.target for edge in edges] for edges in self._dag.outgoing]
        for index in topological_order(successors):
            self._pass_gate()
            self._decide(self._dag.nodes[index])
        self._end()

    def _pass_gate(self) -> None:
        with self._changed:
            while self.run.state == Run.PAUSED and not self.run.cancel_requested:
                self._changed.wait()

    def _decide(self, node: Node) -> None:
        if self.run.cancel_requested:
            self._end_step(node, Step.CANCELLED)
            return
        try:
            incoming = [edge for edges in self._dag.outgoing for edge in edges if edge.target == node.index]
            if not _JOINS[node.join]([self._is_satisfied(edge) for edge in incoming]):
                self._end_step(node, Step.SKIPPED)
                return
            config = node.config.render(self._scope(node.config.references))
        except ExpressionError as error:
            self._end_step(node, Step.FAILED, _failure(Failure.PERMANENT, "EXPRESSION", str(error)))
            return
        self._call(node, config)

    def _is_satisfied(self, edge: Any) -> bool:
        source = self.steps[self._dag.nodes[edge.source].id]
        if source.state not in _SATISFYING[edge.condition]:
            return False
        return edge.expression is None or edge.expression.evaluate_condition(self._scope(edge.expression.references))

    def _call(self, node: Node, config: object) -> None:
        step = self.steps[node.id]
        for attempt in range(1, node.retry.max_attempts + 1):
            step.attempt = attempt
            name = f"{self.run.id}:{node.id}:{attempt - 1}"
            step.execution_key = hashlib.sha256(name.encode()).hexdigest()
            step.state = Step.LEASED
            if attempt == 1:
                step.start_time.GetCurrentTime()
            self._tell(Event.STEP_STARTED, node.id, attempt)
            failure = self._try(node, config, attempt)
            if failure is None:
                self._end_step(node, Step.SUCCEEDED)
                return
            if getattr(failure, "class") != Failure.TRANSIENT or attempt == node.retry.max_attempts:
                self._end_step(node, Step.FAILED, failure)
                return
            self._tell(Event.STEP_ATTEMPT_FAILED, node.id, attempt)

    def _try(self, node: Node, config: object, attempt: int) -> Failure | None:
        function = self._plugins.get(node.type)
        if function is None:
            return _failure(Failure.PERMANENT, "PLUGIN_ERROR", f"the fake control plane has no function {node.type}")
        given: dict[str, Any] = {
            "config": config,
            "inputs": self._inputs(node),
            "input": plain_value(self.run.input),
            "log": partial(self._log, node.id, attempt),
        }
        try:
            wanted = inspect.signature(function).parameters
            output: Json = function(**{key: value for key, value in given.items() if key in wanted})
            self.steps[node.id].output.CopyFrom(parse_value(output, "output"))
        except TransientError as error:
            return _failure(Failure.TRANSIENT, error.code, str(error))
        except PermanentError as error:
            return _failure(Failure.PERMANENT, error.code, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its failure
            return _failure(Failure.PERMANENT, "PLUGIN_ERROR", f"{type(error).__name__}: {error}")
        return None

    def _inputs(self, node: Node) -> dict[str, Json]:
        sources = [self._dag.nodes[index].id for index in self._dag.incoming[node.index]]
        done = (self.steps[name] for name in sources)
        return {step.node_id: plain_value(step.output) for step in done if step.state == Step.SUCCEEDED}

    def _scope(self, references: frozenset[str]) -> Scope:
        nodes = {
            name: {"state": Step.State.Name(self.steps[name].state), "output": plain_value(self.steps[name].output)}
            for name in references
        }
        run = {"id": self.run.id, "workflowId": self.run.workflow_id}
        return Scope(input=plain_value(self.run.input), run=run, nodes=nodes)

    def _end_step(self, node: Node, state: Step.State, failure: Failure | None = None) -> None:
        step = self.steps[node.id]
        step.state = state
        step.end_time.GetCurrentTime()
        if failure is not None:
            step.error.CopyFrom(failure)
            handled = self._dag.handles_failure[node.index]
            if not handled and not self.run.HasField("error"):
                self.run.error.CopyFrom(failure)
                self.run.error.message = f"step {node.id!r} failed: {failure.message}"
        self._tell(_STEP_ENDED[state], node.id, step.attempt)

    def _end(self) -> None:
        state = (
            Run.CANCELLED if self.run.cancel_requested else Run.FAILED if self.run.HasField("error") else Run.SUCCEEDED
        )
        if state == Run.SUCCEEDED:
            try:
                self.run.output.CopyFrom(parse_value(self._output(), "output"))
            except ExpressionError as error:
                self.run.error.CopyFrom(_failure(Failure.PERMANENT, "OUTPUT", str(error)))
                state = Run.FAILED
        self.run.end_time.GetCurrentTime()
        self._move_run(state, _RUN_ENDED[state])

    def _output(self) -> Json:
        template = self._dag.policies.output
        if template is not None:
            return cast("Json", template.render(self._scope(template.references)))
        last = (node.id for node in self._dag.nodes if not self._dag.outgoing[node.index])
        done = (self.steps[name] for name in last)
        return {step.node_id: plain_value(step.output) for step in done if step.state == Step.SUCCEEDED}

    def _move_run(self, state: Run.State, event: Event.Type) -> None:
        with self._changed:
            if self.run.state != Run.PAUSED or state in ENDED:
                self.run.state = state
            self._append(event)

    def _tell(self, event: Event.Type, node_id: str = "", attempt: int = 0) -> None:
        with self._changed:
            self._append(event, node_id, attempt)

    def _append(self, event: Event.Type, node_id: str = "", attempt: int = 0) -> None:
        made = Event(sequence=len(self._events) + 1, type=event, node_id=node_id, attempt=attempt)
        made.create_time.GetCurrentTime()
        self._events.append(made)
        self._changed.notify_all()

    def _log(self, node_id: str, attempt: int, text: str) -> None:
        with self._changed:
            for line in text.splitlines():
                made = LogLine(node_id=node_id, attempt=attempt, stream=LogLine.STDOUT, text=line)
                made.create_time.GetCurrentTime()
                self._lines.append(made)
            self._changed.notify_all()


def _failure(kind: Failure.Class, code: str, message: str) -> Failure:
    # `class` is a word of Python's.
    fields: dict[str, Any] = {"class": kind, "code": code, "message": message, "cause": "PLUGIN_ERROR"}
    return Failure(**fields)
