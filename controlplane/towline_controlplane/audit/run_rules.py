"""What holds of a run and the states of its steps, whatever happened to it. Pure."""

from towline_controlplane.audit.findings import Findings, RunRows
from towline_controlplane.engine import placement
from towline_controlplane.engine.transitions import RUN_TERMINAL, STEP_TERMINAL
from towline_controlplane.model import RunState, StepState
from towline_controlplane.requirements import Requirements


def check_nodes(rows: RunRows, findings: Findings) -> None:
    """The steps are the nodes of the version that the run was started with (I21)."""
    nodes = rows.dag.by_id
    findings.equal("I21", "nodes without a step", [], sorted(nodes.keys() - rows.steps.keys()))
    findings.equal("I21", "steps without a node", [], sorted(rows.steps.keys() - nodes.keys()))
    for step in rows.steps.values():
        if step.node_id in nodes:
            node = rows.dag.nodes[nodes[step.node_id]]
            findings.equal("I21", "position", node.index, step.position, step.node_id)
            # A run from before something could be asked for keeps the queues that it was created with.
            asked = node.requirements
            earlier = (
                *(Requirements(asked.labels), Requirements(asked.labels, asked.sandbox_level, asked.plugin)),
                asked,  # more memory did not mean another queue
            )
            if step.queue_id not in map(placement.queue_id, earlier):
                queue_id = placement.queue_id(asked.with_memory(step.memory_limit_mb))
                findings.equal("I21", "queue", queue_id, step.queue_id, step.node_id)


def check_run(rows: RunRows, findings: Findings) -> None:
    """A run has ended with its last step (I6), in the state that its steps call for."""
    run = rows.run
    still_open = sum(step.state not in STEP_TERMINAL for step in rows.steps.values())
    ended = run.state in RUN_TERMINAL
    findings.equal("I6", "open_steps", still_open, run.open_steps)
    findings.equal("I6", f"has ended with {still_open} steps open", still_open == 0, ended)
    findings.equal("I6", f"has an end_time while {run.state}", ended, run.end_time is not None)
    if ended:
        findings.equal("I6", "state", _final_state(rows), run.state)
        findings.equal("I6", f"has an error while {run.state}", run.state in _WITH_ERROR, run.error is not None)
    mapped = run.state is RunState.SUCCEEDED and rows.dag.policies.output is not None
    findings.equal("I6", f"has an output while {run.state}", mapped, run.output is not None)


def check_states(rows: RunRows, findings: Findings) -> None:
    """Ends are dated (I6), the gates of pause (I11) and cancel (I12) are closed, only successes have outputs (I7)."""
    closed = rows.run.state is RunState.PAUSED or not rows.run.admitted
    for step in rows.steps.values():
        node_id, ended = step.node_id, step.state in STEP_TERMINAL
        findings.equal("I6", f"has an end_time while {step.state}", ended, step.end_time is not None, node_id)
        held = closed and step.state is StepState.READY
        findings.equal("I11", f"held while {step.state} in a run that is {rows.run.state}", held, step.held, node_id)
        if step.state is StepState.READY:
            findings.at_least("I32", "fair_key while READY", 1, step.fair_key, node_id)
        if rows.run.cancel_requested and not ended:
            findings.equal("I12", "state of an open step after the cancel", StepState.LEASED, step.state, node_id)
        if step.state is not StepState.SUCCEEDED:
            output = (step.output, step.output_digest)
            findings.equal("I7", f"output while {step.state}", (None, None), output, node_id)


_WITH_ERROR = (RunState.FAILED, RunState.TIMED_OUT)


def _final_state(rows: RunRows) -> RunState:
    if rows.run.deadline_reached:
        return RunState.TIMED_OUT
    if rows.run.cancel_requested:
        return RunState.CANCELLED
    without_output = rows.run.error is not None and rows.run.error.code == "OUTPUT"
    return RunState.FAILED if rows.run.failed_steps or without_output else RunState.SUCCEEDED
