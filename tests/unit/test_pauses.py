"""What a pause holds back, and what of a run stands still in it."""

import pytest
from engine_driver import BUSY, Driver
from test_advance_scenarios import tries, workflow

from towline_controlplane.engine import commands
from towline_controlplane.engine.commands import Command, Outcome
from towline_controlplane.model import EventType, RunState, StepState


def test_a_pause_holds_what_is_ready_and_lets_go_on_what_runs() -> None:
    driver = Driver(workflow("a → c", "b → d"))
    driver.hand_out("a")
    driver.do(commands.Pause())
    assert driver.run.state is RunState.PAUSED
    assert driver.steps["b"].held
    driver.end("a", Outcome.SUCCEEDED, output=1)
    assert (driver.state("a"), driver.steps["c"].held) == (StepState.SUCCEEDED, True)
    driver.do(commands.Resume())
    assert driver.run.state is RunState.RUNNING
    assert not any(step.held for step in driver.steps.values())


def test_pausing_and_resuming_twice_is_doing_it_once() -> None:
    driver = Driver(workflow("a → b"))
    driver.do(commands.Resume())
    assert driver.run.state is RunState.PENDING
    driver.do(commands.Pause(), commands.Pause())
    driver.do(commands.Resume(), commands.Resume())
    assert driver.kinds().count(EventType.RUN_PAUSED) == driver.kinds().count(EventType.RUN_RESUMED) == 1


def test_the_last_mode_of_a_pause_counts() -> None:
    driver = Driver(workflow("a → b"))
    driver.hand_out("a")
    frozen: list[bool] = []
    for command in (commands.Pause(freeze=True), commands.Pause(freeze=True), commands.Pause(), commands.Pause()):
        driver.do(command)
        frozen.append(driver.run.frozen)
    assert frozen == [True, True, False, False]
    assert driver.kinds()[-3:] == [EventType.RUN_PAUSED, EventType.RUN_FROZEN, EventType.RUN_THAWED]


@pytest.mark.parametrize("command", [commands.Resume(), commands.Cancel(), commands.ReachDeadline()])
def test_what_ends_a_pause_thaws_it(command: Command) -> None:
    driver = Driver(workflow("a → b"))
    driver.hand_out("a")
    driver.do(commands.Pause(freeze=True))
    driver.do(command)
    assert not driver.run.frozen


def test_a_result_that_a_freeze_came_too_late_for_is_kept() -> None:
    driver = Driver(workflow(a={}))
    driver.hand_out("a")
    driver.do(commands.Pause(freeze=True))
    driver.end("a", Outcome.SUCCEEDED, output=1)
    assert (driver.run.state, driver.run.frozen) == (RunState.SUCCEEDED, False)


def test_a_retry_that_comes_due_in_a_pause_is_held() -> None:
    driver = Driver(workflow(a=tries(2)))
    driver.hand_out("a")
    driver.do(commands.Pause())
    driver.end("a", Outcome.FAILED, BUSY)
    assert (driver.state("a"), driver.steps["a"].held) == (StepState.READY, True)
