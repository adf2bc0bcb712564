"""What the engine itself says of a death: of agents that are gone, runs that are stopped, steps that wait too long."""

import pytest
from engine_driver import HUNGRY, Driver, end

from towline_controlplane.engine import commands
from towline_controlplane.engine.commands import Command, Outcome
from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.model import EventType, StepState

SEEN = '{"peakMemoryBytes":"7"}'


def driver(**retry: object) -> Driver:
    node = {"id": "a", "type": "T", "queueTimeoutMs": 1_000, "retryConfig": {"maxAttempts": 2, **retry}}
    return Driver({"nodes": [node], "edges": []})


def report(outcome: Outcome, cause: Cause = Cause.PLUGIN_ERROR) -> commands.EndAttempt:
    said = end("a", outcome, cause=cause)
    return (
        said
        if outcome is Outcome.SUCCEEDED
        else commands.EndAttempt("a", outcome, said.digest, evidence=Evidence(cause, SEEN))
    )


@pytest.mark.parametrize(
    ("happens", "cause", "facts"),
    [
        ([commands.LoseAttempt("a", "silent")], Cause.AGENT_LOST, "{}"),
        ([report(Outcome.LOST, Cause.LEASE_LOST)], Cause.LEASE_LOST, SEEN),
        ([commands.Cancel(), report(Outcome.CANCELLED, Cause.CANCELLED)], Cause.CANCELLED, SEEN),
        ([commands.Cancel(), report(Outcome.SUCCEEDED)], Cause.CANCELLED, "{}"),
        ([commands.Cancel(), commands.ExpireOffer("a")], Cause.CANCELLED, "{}"),
        ([commands.ReachDeadline(), report(Outcome.CANCELLED, Cause.CANCELLED)], Cause.RUN_TIMEOUT, SEEN),
        ([commands.ReachDeadline(), report(Outcome.FAILED, Cause.CRASH)], Cause.RUN_TIMEOUT, SEEN),
        ([commands.ExpireOffer("a"), commands.ExpireQueueWait("a")], Cause.QUEUE_TIMEOUT, "{}"),
        ([commands.TakeBack("a", failure=HUNGRY)], Cause.INPUTS_UNAVAILABLE, "{}"),
        ([report(Outcome.FAILED, Cause.CRASH)], Cause.CRASH, SEEN),
        ([report(Outcome.TIMED_OUT, Cause.WALL_TIMEOUT)], Cause.WALL_TIMEOUT, SEEN),
        ([commands.EndAttempt("a", Outcome.FAILED, "d")], Cause.INTERNAL, "{}"),
    ],
)
def test_every_death_has_its_cause(happens: list[Command], cause: Cause, facts: str) -> None:
    run = driver()
    run.hand_out("a")
    for command in happens:
        run.do(command)
    assert run.attempts["a", 1].evidence == Evidence(cause, facts)


def test_memory_is_raised_after_each_attempt_that_starved_and_the_history_says_so() -> None:
    run = driver(maxAttempts=4, memoryMultiplier=2, maxMemoryMb=300)
    for _ in range(3):
        run.hand_out("a")
        run.do(end("a", Outcome.FAILED, HUNGRY, cause=Cause.MEMORY_LIMIT))
    assert [attempt.memory_limit_mb for attempt in run.attempts.values()] == [100, 200, 300]
    assert run.state("a") is StepState.FAILED
    retries = [event for event in run.events if event.type is EventType.STEP_RETRY_SCHEDULED]
    assert [event.details.get("memoryLimitMb") for event in retries] == [200, 300]


def test_a_retry_for_another_cause_keeps_the_raised_limit() -> None:
    run = driver(maxAttempts=4, memoryMultiplier=2, retryOn=["CRASH"])
    run.hand_out("a")
    run.do(end("a", Outcome.FAILED, HUNGRY, cause=Cause.KERNEL_OOM))
    run.hand_out("a")
    run.do(end("a", Outcome.FAILED, HUNGRY, cause=Cause.CRASH))
    assert run.hand_out("a").memory_limit_mb == 200
