"""The life of runs, told by hand."""

from itertools import pairwise

import pytest
from engine_driver import BROKEN, BUSY, LEFT, SLOW, Driver

from towline_controlplane.engine import commands
from towline_controlplane.engine.commands import Outcome
from towline_controlplane.model import AttemptState, EventType, RunState, StepState


def workflow(*edges: str, **nodes: dict[str, object]) -> dict[str, object]:
    """Returns a document from edges such as `a → b`, or `a ALWAYS b`, and what is special about some nodes."""
    parts = [edge.replace("→", "ON_SUCCESS").split(maxsplit=2) for edge in edges]
    ends = [(source, kind, target) for source, kind, target in parts]
    names = dict.fromkeys([*nodes, *(end for source, _, target in ends for end in (source, target))])
    return {
        "nodes": [{"id": name, "type": "T"} | nodes.get(name, {}) for name in names],
        "edges": [{"from": source, "to": target, "condition": {"type": kind}} for source, kind, target in ends],
    }


def tries(count: int) -> dict[str, object]:
    return {"retryConfig": {"maxAttempts": count}}


def test_a_chain_runs_one_step_after_the_other() -> None:
    driver = Driver(workflow("a → b", "b → c"))
    assert driver.run.state is RunState.PENDING
    for node, after in [("a", "b"), ("b", "c"), ("c", None)]:
        assert driver.state(node) is StepState.READY
        assert after is None or driver.state(after) is StepState.WAITING
        driver.succeed(node, {"text": node})
    assert driver.run.state is RunState.SUCCEEDED
    assert driver.run.end_time == driver.now
    assert driver.kinds() == [
        EventType.RUN_CREATED,
        *(EventType.STEP_READY, EventType.STEP_OFFERED, EventType.RUN_STARTED),
        *(EventType.STEP_STARTED, EventType.STEP_SUCCEEDED),
        *(EventType.STEP_READY, EventType.STEP_OFFERED, EventType.STEP_STARTED, EventType.STEP_SUCCEEDED) * 2,
        EventType.RUN_SUCCEEDED,
    ]


def test_a_diamond_joins_when_both_sides_are_done() -> None:
    driver = Driver(workflow("a → b", "a → c", "b → d", "c → d"))
    driver.succeed("a")
    driver.succeed("c")
    assert driver.state("d") is StepState.WAITING
    driver.succeed("b")
    assert driver.state("d") is StepState.READY


@pytest.mark.parametrize(
    ("join", "failing", "expected"),
    [
        ("ALL", 0, "READY"),
        ("ALL", 1, "SKIPPED"),
        ("ALL", 3, "SKIPPED"),
        ("ANY", 0, "READY"),
        ("ANY", 2, "READY"),
        ("ANY", 3, "SKIPPED"),
        ("ALL_DONE", 0, "READY"),
        ("ALL_DONE", 3, "READY"),
    ],
)
def test_a_join_decides_when_every_source_has_ended(join: str, failing: int, expected: str) -> None:
    driver = Driver(workflow("a → z", "b → z", "c → z", z={"join": join}))
    for place, node in enumerate("abc"):
        assert driver.state("z") is StepState.WAITING
        if place < failing:
            driver.fail(node)
        else:
            driver.succeed(node)
    assert driver.state("z") == expected


def test_a_failure_that_an_edge_handles_does_not_fail_the_run() -> None:
    driver = Driver(workflow("a → b", "a ON_FAILURE alarm"))
    driver.fail("a")
    assert driver.states() == {"a": "FAILED", "b": "SKIPPED", "alarm": "READY"}
    driver.succeed("alarm")
    assert driver.run.state is RunState.SUCCEEDED
    assert (driver.run.failed_steps, driver.run.error) == (0, None)


def test_the_handler_of_a_failure_is_skipped_when_there_is_none() -> None:
    driver = Driver(workflow("a ON_FAILURE alarm"))
    driver.succeed("a")
    assert (driver.state("alarm"), driver.run.state) == (StepState.SKIPPED, RunState.SUCCEEDED)


def test_cleanup_runs_always_and_forgives_nothing() -> None:
    driver = Driver(workflow("a → b", "b ALWAYS cleanup"))
    driver.fail("a")
    assert driver.states() == {"a": "FAILED", "b": "SKIPPED", "cleanup": "READY"}
    driver.succeed("cleanup")
    assert driver.run.state is RunState.FAILED
    assert driver.run.error is not None
    assert driver.run.error.code == "BROKEN"
    assert driver.run.error.message == "step 'a' failed: the config is wrong"


def test_a_transient_failure_is_tried_again_after_its_backoff() -> None:
    driver = Driver(workflow(a=tries(3)), jitter=0.5)
    driver.fail("a", BUSY)
    step = driver.steps["a"]
    assert (step.state, step.failures, step.next_attempt) == (StepState.READY, 1, 2)
    assert step.not_before == driver.now + 500_000
    assert step.error is None
    assert driver.events[-1].type is EventType.STEP_RETRY_SCHEDULED
    assert driver.events[-1].details == {"delayMs": 500}
    driver.fail("a", BUSY)
    assert driver.steps["a"].not_before == driver.now + 1_000_000
    driver.succeed("a", {"n": 1})
    assert (driver.steps["a"].output, driver.run.state) == ('{"n": 1}', RunState.SUCCEEDED)
    assert [attempt.state.value for attempt in driver.attempts.values()] == ["FAILED", "FAILED", "SUCCEEDED"]


def test_a_plugin_may_set_the_wait_before_the_retry() -> None:
    driver = Driver(workflow(a=tries(3)))
    driver.hand_out("a")
    driver.do(commands.EndAttempt("a", Outcome.FAILED, "digest", failure=BUSY, retry_after_ms=90_000))
    assert driver.steps["a"].not_before == driver.now + 90_000_000


def test_the_last_try_fails_the_step() -> None:
    driver = Driver(workflow(a=tries(2)))
    driver.fail("a", BUSY)
    driver.fail("a", BUSY)
    assert (driver.state("a"), driver.steps["a"].error) == (StepState.FAILED, BUSY)
    assert driver.run.state is RunState.FAILED


def test_a_permanent_failure_is_not_tried_again() -> None:
    driver = Driver(workflow(a=tries(9)))
    driver.fail("a", BROKEN)
    assert driver.state("a") is StepState.FAILED


def test_a_step_that_takes_too_long_ends_timed_out() -> None:
    driver = Driver(workflow("a ON_FAILURE alarm", a=tries(2)))
    for expected in (StepState.READY, StepState.TIMED_OUT):
        driver.hand_out("a")
        driver.end("a", Outcome.TIMED_OUT, SLOW)
        assert driver.state("a") is expected
    assert driver.state("alarm") is StepState.READY


def test_an_offer_that_lapses_costs_no_retry() -> None:
    driver = Driver(workflow(a=tries(1)))
    for epoch in (1, 2, 3):
        assert driver.hand_out("a").epoch == epoch
        driver.do(commands.ExpireOffer("a"))
        assert (driver.state("a"), driver.steps["a"].failures) == (StepState.READY, 0)
        assert driver.steps["a"].agent_id is None
    driver.succeed("a")
    assert len(driver.attempts) == 1
    assert driver.run.state is RunState.SUCCEEDED


def test_a_report_confirms_the_start() -> None:
    driver = Driver(workflow("a → b"))
    driver.succeed("a")
    assert driver.newest("a").start_time == driver.now
    assert driver.run.start_time == driver.now


def test_a_start_confirmed_twice_is_confirmed_once() -> None:
    driver = Driver(workflow("a → b"))
    driver.hand_out("a")
    driver.start("a")
    started = driver.newest("a")
    driver.start("a")
    assert driver.newest("a") == started
    assert driver.kinds().count(EventType.STEP_STARTED) == 1


def test_lost_agents_have_a_budget_of_their_own() -> None:
    driver = Driver(workflow(a={"retryConfig": {"maxAttempts": 1, "maxLost": 2}}))
    for _ in range(2):
        driver.hand_out("a")
        driver.start("a")
        driver.lose("a")
        assert (driver.state("a"), driver.steps["a"].not_before) == (StepState.READY, 0)
    driver.hand_out("a")
    driver.start("a")
    driver.lose("a")
    error = driver.steps["a"].error
    assert driver.state("a") is StepState.FAILED
    assert error is not None
    assert (error.code, error.cause) == ("AGENT_LOST", "no sign of the agent for 30 s")
    assert error.message == "3 agents went away while they ran it"


def test_an_unsafe_step_whose_start_was_not_confirmed_is_parked() -> None:
    driver = Driver(workflow(a={"sideEffects": "UNSAFE"}))
    driver.hand_out("a")
    driver.do(commands.ExpireOffer("a"))
    assert driver.state("a") is StepState.PARKED
    assert driver.newest("a").state is AttemptState.LOST


def test_an_attempt_that_its_agent_had_to_leave_is_a_loss() -> None:
    driver = Driver(workflow(a={"retryConfig": {"maxAttempts": 1, "maxLost": 1}}))
    driver.hand_out("a")
    driver.end("a", Outcome.LOST, LEFT)
    assert driver.newest("a").state is AttemptState.LOST
    assert (driver.state("a"), driver.steps["a"].failures, driver.steps["a"].losses) == (StepState.READY, 0, 1)


def test_an_unsafe_step_waits_for_a_person_after_a_loss() -> None:
    driver = Driver(workflow("a → b", a={"sideEffects": "UNSAFE"}))
    driver.hand_out("a")
    driver.start("a")
    driver.lose("a")
    assert (driver.state("a"), driver.state("b")) == (StepState.PARKED, StepState.WAITING)
    assert driver.run.state is RunState.RUNNING
    assert driver.events[-1].type is EventType.STEP_PARKED
    driver.do(commands.Cancel())
    assert driver.run.state is RunState.CANCELLED


def test_a_cancel_ends_at_once_what_no_agent_holds() -> None:
    driver = Driver(workflow("a → b", "c → d"))
    driver.hand_out("a")
    driver.do(commands.Cancel())
    assert driver.states() == {"a": "LEASED", "b": "CANCELLED", "c": "CANCELLED", "d": "CANCELLED"}
    assert driver.run.state is RunState.PENDING
    assert driver.run.cancel_requested


@pytest.mark.parametrize("outcome", Outcome)
def test_whatever_an_agent_reports_after_a_cancel_the_step_is_cancelled(outcome: Outcome) -> None:
    driver = Driver(workflow("a → b"))
    driver.hand_out("a")
    driver.do(commands.Cancel())
    driver.end("a", outcome, None if outcome is Outcome.SUCCEEDED else BUSY, output=1)
    assert (driver.state("a"), driver.steps["a"].output) == (StepState.CANCELLED, None)
    assert driver.newest("a").state is AttemptState.CANCELLED
    assert (driver.run.state, driver.run.error) == (RunState.CANCELLED, None)


def test_a_success_before_the_cancel_stays_one() -> None:
    driver = Driver(workflow("a → b"))
    driver.succeed("a")
    driver.do(commands.Cancel())
    assert driver.states() == {"a": "SUCCEEDED", "b": "CANCELLED"}
    assert driver.run.state is RunState.CANCELLED


@pytest.mark.parametrize("gone", ["offer", "agent"])
def test_a_cancel_does_not_wait_for_an_agent_that_is_gone(gone: str) -> None:
    driver = Driver(workflow("a → b"))
    driver.hand_out("a")
    if gone == "agent":
        driver.start("a")
    driver.do(commands.Cancel())
    driver.do(commands.ExpireOffer("a") if gone == "offer" else commands.LoseAttempt("a", "gone"))
    assert (driver.state("a"), driver.run.state) == (StepState.CANCELLED, RunState.CANCELLED)


def test_a_cancel_beats_a_pause_and_a_retry() -> None:
    driver = Driver(workflow("a → b", c=tries(3)))
    driver.fail("c", BUSY)
    driver.do(commands.Pause())
    driver.do(commands.Cancel())
    assert driver.run.state is RunState.CANCELLED
    assert driver.state("c") is StepState.CANCELLED


def test_a_cancel_closes_an_offer_that_had_lapsed() -> None:
    driver = Driver(workflow("a → b"))
    driver.hand_out("a")
    driver.do(commands.ExpireOffer("a"))
    driver.do(commands.Cancel())
    assert driver.newest("a").state is AttemptState.CANCELLED


def test_an_agent_that_stops_a_step_unasked_fails_the_run_and_cleanup_runs() -> None:
    driver = Driver(workflow("a → b", "a ALWAYS cleanup"))
    driver.hand_out("a")
    driver.end("a", Outcome.CANCELLED)
    assert driver.states() == {"a": "CANCELLED", "b": "SKIPPED", "cleanup": "READY"}
    driver.succeed("cleanup")
    assert driver.run.state is RunState.FAILED
    assert driver.run.error is not None
    assert driver.run.error.code == "CANCELLED"


def test_skipping_propagates_through_a_long_chain() -> None:
    names = [f"n{index}" for index in range(5_000)]
    driver = Driver(workflow(*(f"{a} → {b}" for a, b in pairwise(names))))
    driver.fail("n0")
    assert driver.run.state is RunState.FAILED
    assert sum(step.state is StepState.SKIPPED for step in driver.steps.values()) == 4_999
    assert driver.waves == 4_999


def test_finishing_a_step_touches_its_successors_alone() -> None:
    leaves = [f"leaf{index}" for index in range(60)]
    driver = Driver(workflow(*(f"root → {leaf}" for leaf in leaves), *(f"{leaf} → join" for leaf in leaves)))
    driver.succeed("root")
    assert {driver.state(leaf) for leaf in leaves} == {StepState.READY}
    for leaf in leaves[:-1]:
        driver.succeed(leaf)
    assert (driver.state("join"), driver.steps["join"].open_edges) == (StepState.WAITING, 1)
    driver.succeed(leaves[-1])
    assert driver.state("join") is StepState.READY


def guarded(expression: str, **join: object) -> dict[str, object]:
    return {
        "nodes": [{"id": "a", "type": "T"}, {"id": "b", "type": "T"}, {"id": "z", "type": "T"} | join],
        "edges": [
            {"from": "a", "to": "z", "condition": {"type": "EXPRESSION", "expression": expression}},
            {"from": "b", "to": "z", "condition": {"type": "ALWAYS"}},
        ],
    }


@pytest.mark.parametrize(("count", "expected"), [(10.5, "READY"), (11, "READY"), (10, "SKIPPED"), (9.9, "SKIPPED")])
def test_a_condition_reads_recorded_outputs(count: float, expected: str) -> None:
    driver = Driver(guarded("nodes.a.output.count > 10"))
    driver.succeed("a", {"count": count})
    driver.succeed("b")
    assert driver.state("z") == expected


def test_a_condition_that_cannot_be_evaluated_fails_the_step_when_its_sources_have_ended() -> None:
    driver = Driver(guarded("nodes.a.output.count > 10", join="ANY"))
    driver.succeed("a", {})
    assert driver.state("z") is StepState.WAITING
    driver.succeed("b")
    error = driver.steps["z"].error
    assert driver.state("z") is StepState.FAILED
    assert error is not None
    assert error.code == "EXPRESSION"
    assert error.message == "the condition of the edge from 'a' cannot be evaluated: there is no key \"count\""
    assert driver.run.state is RunState.FAILED


def test_a_condition_must_be_true_or_false() -> None:
    driver = Driver(guarded("nodes.a.output"))
    driver.succeed("a", "yes")
    driver.succeed("b")
    assert driver.state("z") is StepState.FAILED


def test_a_config_is_rendered_when_the_step_becomes_ready() -> None:
    document = workflow("a → b", b={"config": {"text": "${{ nodes.a.output.text }}!", "n": "${{ input.n + 1 }}"}})
    driver = Driver(document, run_input={"n": 1})
    assert driver.steps["a"].config is None
    driver.succeed("a", {"text": "hé"})
    assert driver.steps["b"].config == '{"text":"hé!","n":2}'


def test_a_config_that_cannot_be_rendered_fails_the_step() -> None:
    driver = Driver(workflow("b → c", b={"config": {"n": "${{ input.n + 1 }}"}}), run_input={})
    assert driver.states() == {"b": "FAILED", "c": "SKIPPED"}
    assert driver.run.state is RunState.FAILED
    assert driver.run.error is not None
    assert "${{ input.n + 1 }}: there is no key" in driver.run.error.message
