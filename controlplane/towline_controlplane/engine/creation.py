"""Decides how a run begins: one row per node, those without predecessors READY."""

from collections.abc import Mapping
from dataclasses import dataclass

from towline_controlplane.engine.draft import Draft
from towline_controlplane.engine.edges import open_or_skip
from towline_controlplane.engine.graph import Dag
from towline_controlplane.engine.view import Decision, View
from towline_controlplane.model import EventType, Run, RunState, Step, StepState


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is started with. `input` is JSON text; `parsed_input` the same value if an expression may read it."""

    run_id: str
    workflow_id: str
    version_id: str
    owner_id: str
    input: str
    parsed_input: object
    priority: int
    labels: Mapping[str, str]
    concurrency_group: str | None = None
    """The runs that share the limit of the workflow, if it has one."""
    schedule_id: str | None = None
    scheduled_time: int | None = None
    """As in Run."""


def create_run(dag: Dag, request: RunRequest, now: int) -> tuple[View, Decision]:
    """Returns the view of a new run, with a WAITING step for each node, and the decision that begins it."""
    run = Run(
        id=request.run_id,
        workflow_id=request.workflow_id,
        version_id=request.version_id,
        owner_id=request.owner_id,
        state=RunState.PENDING,
        input=request.input,
        priority=request.priority,
        labels=request.labels,
        cancel_requested=False,
        open_steps=len(dag.nodes),
        failed_steps=0,
        event_count=0,
        create_time=now,
        deadline=now + dag.policies.timeout_ms * 1000 if dag.policies.timeout_ms else None,
        concurrency_group=request.concurrency_group,
        concurrency_limit=dag.policies.concurrency.limit if dag.policies.concurrency else 0,
        admitted=request.concurrency_group is None,
        schedule_id=request.schedule_id,
        scheduled_time=request.scheduled_time,
    )
    view = View(dag, run, request.parsed_input, steps=_new_steps(dag, run))
    draft = Draft(view, now)
    draft.record(EventType.RUN_CREATED)
    if not run.admitted:
        draft.record(EventType.RUN_QUEUED)
    for node in dag.nodes:
        if dag.in_degree[node.index] == 0:
            open_or_skip(draft, node.id)
    return view, draft.decision()


def _new_steps(dag: Dag, run: Run) -> dict[str, Step]:
    return {
        node.id: Step(
            run_id=run.id,
            node_id=node.id,
            position=node.index,
            state=StepState.WAITING,
            queue_id=node.queue_id,
            priority=run.priority,
            open_edges=dag.in_degree[node.index],
        )
        for node in dag.nodes
    }
