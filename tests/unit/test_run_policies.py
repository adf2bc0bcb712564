"""Deadlines, limits, output and retry of runs, told by hand."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from engine_driver import BROKEN, BUSY, SLOW, Driver

from towline_controlplane.engine import commands
from towline_controlplane.engine.commands import Outcome
from towline_controlplane.engine.graph import compile_dag
from towline_controlplane.errors import InvalidDag
from towline_controlplane.model import AttemptState, EventType, Failure, FailureClass, RunState, StepState
from towline_dag.expressions import ExpressionError, Scope

RETRYABLE = RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT


def workflow(*edges: str, policies: Mapping[str, Any] | None = None, **nodes: dict[str, Any]) -> dict[str, Any]:
    """Returns a document from edges such as `a b` or `a ALWAYS b`, and what is special about some nodes."""
    parts = [(first, rest[0] if len(rest) == 2 else "ON_SUCCESS", rest[-1]) for first, *rest in map(str.split, edges)]
    names = dict.fromkeys([*nodes, *(end for source, _, target in parts for end in (source, target))])
    return {
        "nodes": [{"id": name, "type": "T", "retryConfig": {"maxAttempts": 1}} | nodes.get(name, {}) for name in names],
        "edges": [{"from": source, "to": target, "condition": {"type": kind}} for source, kind, target in parts],
        **(policies or {}),
    }


def test_an_output_mapping_keeps_types_and_sees_input_run_and_every_node() -> None:
    mapping = {"sum": "${{ nodes.a.output.n + nodes.b.output.n }}", "said": "n=${{ input.n }}", "run": "${{ run.id }}"}
    driver = Driver(workflow(a={}, b={}, policies={"output": mapping}), run_input={"n": 1})
    driver.succeed("a", {"n": 2})
    assert driver.run.output is None
    driver.succeed("b", {"n": 3})
    assert driver.run.state is RunState.SUCCEEDED
    assert json.loads(driver.run.output or "") == {"sum": 5, "said": "n=1", "run": "run-1"}


@pytest.mark.parametrize("mapping", ["${{ nodes.a.state }}", 7, ["x"], {"constant": True}])
def test_an_output_may_be_any_json(mapping: object) -> None:
    driver = Driver(workflow(a={}, policies={"output": mapping}))
    driver.succeed("a")
    assert json.loads(driver.run.output or "") == ("SUCCEEDED" if isinstance(mapping, str) else mapping)


def test_an_output_that_cannot_be_rendered_fails_the_run_with_the_expression() -> None:
    driver = Driver(workflow(a={}, policies={"output": "${{ nodes.a.output.missing }}"}))
    driver.succeed("a", {})
    assert driver.run.state is RunState.FAILED
    assert driver.run.error is not None
    assert driver.run.error.code == "OUTPUT"
    assert "nodes.a.output.missing" in driver.run.error.message


def test_a_run_that_does_not_succeed_has_no_output() -> None:
    driver = Driver(workflow(a={}, policies={"output": "${{ nodes.a.output.n }}"}))
    driver.fail("a")
    assert (driver.run.state, driver.run.output) == (RunState.FAILED, None)
    assert driver.run.error is not None
    assert driver.run.error.code == "BROKEN"


@pytest.mark.parametrize(
    ("policies", "place", "said"),
    [
        ({"output": "${{ nodes.b.output }}"}, "output", "'b' is not a node"),
        ({"output": {"x": ["${{ 1 + }}"]}}, "output.x[0]", "1:4"),
        ({"output": "${{ 1 +"}, "output", "no closing"),
        ({"timeoutMs": -1}, "timeoutMs", "between"),
        ({"concurrency": {"limit": 1_001}}, "concurrency.limit", "between"),
        ({"concurrency": {"key": "input.x"}}, "concurrency.limit", "between"),
        ({"concurrency": {"key": "input.", "limit": 1}}, "concurrency.key", ""),
        ({"concurrency": {"key": "nodes.a.output", "limit": 1}}, "concurrency.key", "reads a node"),
        ({"concurrency": {"key": 7, "limit": 1}}, "concurrency.key", "string"),
        ({"concurrency": "one"}, "concurrency", "object"),
    ],
)
def test_a_wrong_policy_is_refused_at_its_place(policies: Mapping[str, object], place: str, said: str) -> None:
    with pytest.raises(InvalidDag) as refusal:
        compile_dag(workflow(a={}, policies=policies))
    [violation] = refusal.value.violations
    assert violation.field == place
    assert said in violation.message


def test_runs_with_equal_keys_share_a_group_and_others_do_not() -> None:
    limit = compile_dag(
        workflow(a={}, policies={"concurrency": {"key": "input.tenant", "limit": 2}})
    ).policies.concurrency
    assert limit is not None
    assert limit.limit == 2

    def group(tenant: object, workflow_id: str = "w") -> str:
        return limit.group(workflow_id, Scope(input={"tenant": tenant}, run={}, nodes={}))

    assert group("x") == group("x")
    assert len({group("x"), group("y"), group(1), group("1"), group("x", "other")}) == 5
    with pytest.raises(ExpressionError):
        limit.group("w", Scope(input={}, run={}, nodes={}))


def test_without_a_key_all_runs_of_a_workflow_share_its_limit() -> None:
    limit = compile_dag(workflow(a={}, policies={"concurrency": {"limit": 1}})).policies.concurrency
    assert limit is not None
    nothing = Scope(input=None, run={}, nodes={})
    assert limit.group("w", nothing) == limit.group("w", nothing) != limit.group("v", nothing)


LIMITED = {"concurrency": {"limit": 1}}


def test_a_run_with_a_limit_waits_until_it_is_admitted() -> None:
    driver = Driver(workflow("a b", policies=LIMITED))
    assert driver.kinds()[:2] == [EventType.RUN_CREATED, EventType.RUN_QUEUED]
    assert (driver.run.state, driver.run.admitted, driver.steps["a"].held) == (RunState.PENDING, False, True)
    driver.do(commands.Admit())
    assert (driver.run.admitted, driver.steps["a"].held) == (True, False)
    driver.succeed("a")
    assert not driver.steps["b"].held


def test_a_pause_and_a_missing_slot_gate_a_step_each_by_itself() -> None:
    driver = Driver(workflow(a={}, policies=LIMITED))
    driver.do(commands.Pause())
    driver.do(commands.Resume())
    assert driver.steps["a"].held
    driver.do(commands.Pause())
    driver.do(commands.Admit())
    assert driver.steps["a"].held
    driver.do(commands.Resume())
    assert not driver.steps["a"].held


def test_a_run_past_its_deadline_is_stopped_and_ends_timed_out() -> None:
    driver = Driver(workflow("a c", b={}, policies={"timeoutMs": 60_000}))
    assert driver.run.deadline == driver.run.create_time + 60_000_000
    driver.hand_out("a")
    driver.start("a")
    driver.do(commands.ReachDeadline())
    assert driver.states() == {"a": "LEASED", "b": "CANCELLED", "c": "CANCELLED"}
    assert driver.run.state is RunState.RUNNING
    driver.end("a", Outcome.SUCCEEDED)
    assert driver.state("a") is StepState.CANCELLED
    assert driver.run.state is RunState.TIMED_OUT
    assert driver.run.error is not None
    assert driver.run.error.code == "TIMEOUT"
    assert driver.kinds()[-1] is EventType.RUN_TIMED_OUT


def test_of_a_cancel_and_a_deadline_the_first_decides() -> None:
    cancelled = Driver(workflow(a={}, policies={"timeoutMs": 1}))
    cancelled.hand_out("a")
    cancelled.do(commands.Cancel())
    cancelled.do(commands.ReachDeadline())
    cancelled.end("a", Outcome.CANCELLED)
    assert cancelled.run.state is RunState.CANCELLED
    overdue = Driver(workflow(a={}, policies={"timeoutMs": 1}))
    overdue.hand_out("a")
    overdue.do(commands.ReachDeadline())
    overdue.do(commands.Cancel())
    overdue.end("a", Outcome.CANCELLED)
    assert overdue.run.state is RunState.TIMED_OUT


def test_a_step_that_no_agent_takes_in_time_times_out_and_handles_it_as_any_failure() -> None:
    driver = Driver(workflow("a ON_FAILURE alarm", "a b", a={"queueTimeoutMs": 5_000}))
    assert driver.steps["a"].queue_deadline == driver.now + 5_000_000
    driver.do(commands.ExpireQueueWait("a"))
    assert driver.states() == {"a": "TIMED_OUT", "alarm": "READY", "b": "SKIPPED"}
    error = driver.steps["a"].error
    assert error is not None
    assert (error.code, error.message) == ("QUEUE_TIMEOUT", "no agent took the step within 5 s")
    assert error.cause == "it was never handed out"


def test_a_step_that_waited_in_vain_says_what_had_become_of_its_tries() -> None:
    node = {"queueTimeoutMs": 5_000, "retryConfig": {"maxAttempts": 3}}
    failed, lapsed = Driver(workflow(a=node)), Driver(workflow(a=node))
    failed.fail("a", BUSY)
    lapsed.hand_out("a")
    lapsed.do(commands.ExpireOffer("a"))
    said: list[str] = []
    for driver in (failed, lapsed):
        driver.do(commands.ExpireQueueWait("a"))
        error = driver.steps["a"].error
        said.append(error.cause if error else "")
    assert said == [
        "it was never handed out after attempt 1 had ended",
        "it was offered for attempt 1, and the offer was not confirmed",
    ]


def test_the_wait_for_an_agent_counts_from_when_the_step_may_go() -> None:
    node = {"queueTimeoutMs": 5_000, "retryConfig": {"backoffMs": 8_000, "maxAttempts": 2}}
    driver = Driver(workflow(a=node))
    driver.do(commands.Pause())
    driver.now += 60_000_000
    driver.do(commands.Resume())
    assert driver.steps["a"].queue_deadline == driver.now + 5_000_000
    driver.fail("a", BUSY)
    assert driver.steps["a"].not_before == driver.now + 4_000_000
    assert driver.steps["a"].queue_deadline == driver.now + 9_000_000


def test_a_lapsed_offer_ends_with_the_step_that_times_out() -> None:
    driver = Driver(workflow(a={"queueTimeoutMs": 5_000}))
    driver.hand_out("a")
    driver.do(commands.ExpireOffer("a"))
    driver.do(commands.ExpireQueueWait("a"))
    assert driver.newest("a").state is AttemptState.CANCELLED
    assert driver.run.state is RunState.FAILED


CODED = Failure(FailureClass.PERMANENT, "EXIT_CODE", "exit code 3")


@pytest.mark.parametrize(
    ("retry_on", "failure", "again"),
    [
        ([], BUSY, True),
        ([], CODED, False),
        (["EXIT_CODE"], CODED, True),
        (["EXIT_CODE"], BUSY, False),
        (["PERMANENT"], CODED, True),
        (["TRANSIENT", "EXIT_CODE"], BUSY, True),
        (["TIMEOUT"], SLOW, True),
        (["TIMEOUT"], BUSY, False),
    ],
)
def test_what_is_retried_is_named_by_class_or_code(retry_on: list[str], failure: Failure, again: bool) -> None:
    driver = Driver(workflow(a={"retryConfig": {"maxAttempts": 2, "retryOn": retry_on}}))
    driver.fail("a", failure)
    assert driver.state("a") is (StepState.READY if again else StepState.FAILED)


@pytest.mark.parametrize("retry_on", [["transient"], [7], "TRANSIENT", ["A"] * 21])
def test_a_malformed_retry_on_is_refused(retry_on: object) -> None:
    with pytest.raises(InvalidDag, match="retryOn"):
        compile_dag(workflow(a={"retryConfig": {"retryOn": retry_on}}))


def test_a_fixed_wait_does_not_grow() -> None:
    driver = Driver(workflow(a={"retryConfig": {"strategy": "FIXED", "backoffMs": 2_000, "maxAttempts": 9}}))
    for _ in range(4):
        driver.fail("a", BUSY)
        assert driver.steps["a"].not_before == driver.now + 1_000_000


def test_a_retried_run_runs_what_failed_and_all_behind_it_again() -> None:
    driver = Driver(workflow("a b", "b c", "b ALWAYS tidy", "a d"))
    driver.succeed("a", 1)
    driver.succeed("d", 1)
    driver.fail("b", BROKEN)
    driver.succeed("tidy")
    assert driver.run.state is RunState.FAILED
    driver.do(commands.Retry())
    assert driver.states() == {"a": "SUCCEEDED", "b": "READY", "c": "WAITING", "tidy": "WAITING", "d": "SUCCEEDED"}
    assert (driver.run.state, driver.run.retries, driver.run.open_steps) == (RunState.PENDING, 1, 3)
    assert (driver.run.error, driver.run.end_time) == (None, None)
    attempt = driver.hand_out("b")
    assert attempt.number == 2
    driver.end("b", Outcome.SUCCEEDED)
    assert driver.run.state is RunState.RUNNING
    driver.succeed("c")
    driver.succeed("tidy")
    assert driver.run.state is RunState.SUCCEEDED
    assert driver.newest("tidy").number == 2
    assert len({a.execution_key for a in driver.attempts.values()}) == len(driver.attempts)


def test_a_retried_step_has_its_whole_budget_again() -> None:
    node = {"retryConfig": {"maxAttempts": 2, "backoffMs": 0, "maxLost": 1}}
    driver = Driver(workflow(a=node))
    for tries in (1, 2):
        driver.fail("a", BUSY)
        driver.hand_out("a")
        driver.lose("a")
        driver.fail("a", BUSY)
        assert driver.run.state is RunState.FAILED
        assert driver.steps["a"].attempt == 3 * tries
        driver.do(commands.Retry())
    assert driver.steps["a"].attempt_base == 6


def test_a_retry_decides_the_edges_from_what_stays_anew() -> None:
    document = workflow("b d", "c d", a={}, b={}, c={})
    document["edges"].append(
        {"from": "a", "to": "d", "condition": {"type": "EXPRESSION", "expression": "nodes.a.output.go"}}
    )
    driver = Driver(document)
    driver.succeed("a", {"go": True})
    driver.succeed("b")
    driver.fail("c")
    assert driver.state("d") is StepState.SKIPPED
    driver.do(commands.Retry())
    assert (driver.steps["d"].open_edges, driver.steps["d"].satisfied_edges) == (1, 2)
    driver.succeed("c")
    assert driver.state("d") is StepState.READY


def test_a_failure_that_was_handled_is_not_run_again() -> None:
    driver = Driver(workflow("a ON_FAILURE h", "h b", c={}))
    driver.fail("a")
    driver.succeed("h")
    driver.succeed("b")
    driver.fail("c")
    driver.do(commands.Retry())
    assert driver.states() == {"a": "FAILED", "h": "SUCCEEDED", "b": "SUCCEEDED", "c": "READY"}


@pytest.mark.parametrize("ending", [commands.Cancel(), commands.ReachDeadline()], ids=["cancelled", "timed out"])
def test_a_stopped_run_can_be_retried_too(ending: commands.Command) -> None:
    driver = Driver(workflow("a b", policies={"timeoutMs": 60_000}))
    driver.succeed("a")
    driver.do(ending)
    assert driver.run.state in RETRYABLE
    driver.do(commands.Retry())
    assert driver.run.deadline == driver.now + 60_000_000
    assert not driver.run.deadline_reached
    driver.succeed("b")
    assert driver.run.state is RunState.SUCCEEDED


def test_a_retried_run_with_a_limit_waits_for_a_slot_again() -> None:
    driver = Driver(workflow(a={}, policies=LIMITED))
    driver.do(commands.Admit())
    driver.fail("a")
    driver.do(commands.Retry())
    assert (driver.run.admitted, driver.steps["a"].held) == (False, True)
    assert driver.kinds()[-1] is EventType.STEP_READY
    driver.do(commands.Admit())
    driver.succeed("a")
    assert driver.run.state is RunState.SUCCEEDED
