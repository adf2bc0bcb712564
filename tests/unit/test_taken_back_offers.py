"""Offers that never left the control plane, and outputs that it keeps in blobs."""

import pytest
from engine_driver import BROKEN, Driver

from towline_controlplane.engine import commands
from towline_controlplane.engine.commands import Outcome
from towline_controlplane.model import AttemptState, RunState, StepState


def chain(condition: str = "true") -> dict[str, object]:
    expression = {"type": "EXPRESSION", "expression": condition}
    return {
        "nodes": [{"id": "a", "type": "T", "sideEffects": "UNSAFE"}, {"id": "z", "type": "T"}],
        "edges": [{"from": "a", "to": "z", "condition": expression}],
    }


@pytest.mark.parametrize(
    ("condition", "expected"), [("nodes.a.output.x == 1", "FAILED"), ("nodes.a.state == 'SUCCEEDED'", "READY")]
)
def test_an_expression_reads_no_output_that_is_in_a_blob(condition: str, expected: str) -> None:
    driver = Driver(chain(condition))
    driver.hand_out("a")
    driver.do(commands.EndAttempt("a", Outcome.SUCCEEDED, digest="report", output_digest="0" * 64))
    assert driver.steps["a"].output_digest == "0" * 64
    assert driver.state("z") == expected
    error = driver.steps["z"].error
    assert error is None or "larger than the 256 KiB that expressions can read" in error.message


def test_an_offer_taken_back_is_made_again_later_under_the_same_number() -> None:
    driver = Driver(chain())
    driver.hand_out("a")
    driver.do(commands.TakeBack("a", delay_ms=1_000))
    step = driver.steps["a"]
    assert (step.state, step.next_attempt, step.not_before) == (StepState.READY, 1, driver.now + 1_000_000)
    assert (step.failures, step.losses) == (0, 0)
    driver.succeed("a")
    assert driver.newest("a").number == 1


def test_an_offer_that_can_never_be_sent_fails_its_step() -> None:
    driver = Driver(chain())
    driver.hand_out("a")
    driver.do(commands.TakeBack("a", failure=BROKEN))
    assert (driver.state("a"), driver.newest("a").state) == (StepState.FAILED, AttemptState.CANCELLED)
    assert driver.steps["a"].error == BROKEN
    assert driver.state("z") is StepState.READY


@pytest.mark.parametrize("failure", [None, BROKEN], ids=["for later", "for good"])
def test_a_cancel_beats_an_offer_taken_back(failure: None) -> None:
    driver = Driver(chain())
    driver.hand_out("a")
    driver.do(commands.Cancel())
    driver.do(commands.TakeBack("a", failure=failure))
    assert driver.state("a") is StepState.CANCELLED
    assert driver.run.state is RunState.CANCELLED
