"""What a hand-out makes of a step: the next epoch, the attempt, the line in the history."""

import hashlib

import pytest
from engine_driver import BUSY, Driver

from towline_controlplane.engine import commands
from towline_controlplane.engine.handout import Holder, execution_key, hand_out
from towline_controlplane.engine.transitions import IllegalTransition
from towline_controlplane.model import AttemptState, EventType, StepState

ONE_STEP = {"nodes": [{"id": "a", "type": "T"}]}
HOLDER = Holder("agent-7", "session-7", "hash-7", offer_expire_time=6_000_000)


def test_the_agent_gets_a_lease_on_the_first_attempt() -> None:
    driver = Driver(ONE_STEP)
    handout = hand_out(driver.run, driver.steps["a"], HOLDER, now=5)
    assert handout.step.state is StepState.LEASED
    assert (handout.step.attempt, handout.step.epoch, handout.step.agent_id) == (1, 1, "agent-7")
    attempt = handout.attempt
    assert (attempt.number, attempt.epoch, attempt.state) == (1, 1, AttemptState.OFFERED)
    assert (attempt.agent_id, attempt.session_id, attempt.token_hash) == ("agent-7", "session-7", "hash-7")
    assert (attempt.create_time, attempt.offer_expire_time, attempt.start_time) == (5, 6_000_000, None)
    assert attempt.execution_key == execution_key("run-1", "a", 1)


def test_the_history_tells_of_it() -> None:
    driver = Driver(ONE_STEP)
    handout = hand_out(driver.run, driver.steps["a"], HOLDER, now=5)
    event = handout.event
    assert (event.type, event.node_id, event.attempt) == (EventType.STEP_OFFERED, "a", 1)
    assert event.details == {"agentId": "agent-7", "epoch": 1}
    assert event.sequence == handout.run.event_count == driver.run.event_count + 1


def test_an_offer_after_one_that_lapsed_is_the_same_attempt_in_a_new_epoch() -> None:
    driver = Driver(ONE_STEP)
    first = driver.hand_out("a")
    driver.do(commands.ExpireOffer("a"))
    second = driver.hand_out("a")
    assert (first.number, first.epoch) == (1, 1)
    assert (second.number, second.epoch) == (1, 2)
    assert second.execution_key == first.execution_key
    assert second.token_hash != first.token_hash


def test_an_offer_after_a_failure_is_the_next_attempt() -> None:
    driver = Driver(ONE_STEP)
    driver.fail("a", BUSY)
    second = driver.hand_out("a")
    assert (second.number, second.epoch) == (2, 2)
    assert second.execution_key == execution_key("run-1", "a", 2)


@pytest.mark.parametrize("state", ["WAITING", "LEASED", "SUCCEEDED"])
def test_only_a_ready_step_is_handed_out(state: str) -> None:
    driver = Driver(
        {"nodes": [{"id": "a", "type": "T"}, {"id": "b", "type": "T"}], "edges": [{"from": "a", "to": "b"}]}
    )
    step = driver.steps["b"]
    if state != "WAITING":
        driver.hand_out("a")
        step = driver.steps["a"]
    if state == "SUCCEEDED":
        driver.end("a", commands.Outcome.SUCCEEDED)
        step = driver.steps["a"]
    with pytest.raises(IllegalTransition):
        hand_out(driver.run, step, HOLDER, now=5)


def test_the_execution_key_counts_retries_from_zero() -> None:
    assert execution_key("run-1", "fetch[3]", 1) == hashlib.sha256(b"run-1:fetch[3]:0").hexdigest()
    assert execution_key("run-1", "fetch[3]", 4) == hashlib.sha256(b"run-1:fetch[3]:3").hexdigest()
