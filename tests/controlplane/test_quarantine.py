"""One run that cannot be decided any more is failed; the others in its batch, and in its queue, go on (I30)."""

import asyncio
from collections.abc import Callable

import pytest
from rig import OWNER, Rig, Scenario

from towline_controlplane.blueprints import Blueprint, Blueprints
from towline_controlplane.engine.transitions import ATTEMPT, ATTEMPT_TERMINAL, RUN, RUN_TERMINAL, STEP, STEP_TERMINAL
from towline_controlplane.engine.view import View
from towline_controlplane.errors import InvalidState
from towline_controlplane.model import AttemptState, EventType, Failure, FailureClass, Run, RunState, StepState
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.quarantine import fail_run
from towline_controlplane.submissions import Verdict
from towline_controlplane.views import Views

FAILURE = Failure(FailureClass.PERMANENT, "INTERNAL", "it broke", "ValueError")


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ids of runs whose blueprint cannot be compiled, and that nobody remembers."""
    poisoned: set[str] = set()
    of_run, take = Blueprints.of_run, Views.take

    def forgetful(self: Views, run_id: str, event_count: int) -> View | None:
        return None if run_id in poisoned else take(self, run_id, event_count)

    def broken(self: Blueprints, tx: Transaction, run: Run) -> Blueprint:
        if run.id in poisoned:
            raise ValueError("the rules have changed")
        return of_run(self, tx, run)

    monkeypatch.setattr(Blueprints, "of_run", broken)
    monkeypatch.setattr(Views, "take", forgetful)
    return poisoned


def test_every_open_state_may_be_quarantined() -> None:
    assert all(StepState.CANCELLED in STEP[state] for state in STEP.keys() - STEP_TERMINAL)
    assert all(AttemptState.CANCELLED in ATTEMPT[state] for state in ATTEMPT.keys() - ATTEMPT_TERMINAL)
    ends = {RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT}
    assert all(ends <= RUN[state] for state in RUN.keys() - RUN_TERMINAL)


def test_a_report_of_a_poisoned_run_fails_it_and_the_rest_of_the_batch_goes_on(
    play: Callable[[Scenario], None], poison: set[str]
) -> None:
    async def scenario(rig: Rig) -> None:
        started = [await rig.start(["a", "b"], [("a", "b")]) for _ in range(6)]
        agent = await rig.agent()
        offers = await agent.pull()
        bad = started[2].id
        poison.add(bad)
        verdicts, _ = await rig.orchestrator.exchange((), [agent.result(offer) for offer in offers], None)
        lost = [offer.run.id for offer, verdict in zip(offers, verdicts, strict=True) if verdict is Verdict.LEASE_LOST]
        assert lost == [bad]
        poison.clear()
        run = await rig.run(bad)
        assert run.error is not None
        assert (run.state, run.error.code, run.error.cause) == (RunState.FAILED, "INTERNAL", "ValueError")
        assert {step.state for step in (await rig.steps(bad)).values()} == {StepState.CANCELLED}
        assert (await rig.events(bad))[-1].type is EventType.RUN_FAILED
        for other in started:
            if other.id != bad:
                assert (await rig.steps(other.id))["a"].state is StepState.SUCCEEDED

    play(scenario)


def test_what_comes_later_for_a_quarantined_run_is_answered(play: Callable[[Scenario], None], poison: set[str]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        poison.add(run.id)
        with pytest.raises(InvalidState):
            await rig.orchestrator.pause(run.id, OWNER)
        await agent.start(offer)
        assert await agent.report(offer) is Verdict.LEASE_LOST
        assert (await rig.run(run.id)).state is RunState.FAILED
        poison.clear()
        assert await agent.report(offer) is Verdict.LEASE_LOST

    play(scenario)


def test_a_run_being_cancelled_ends_as_cancelled(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "b"])
        agent = await rig.agent()
        await agent.pull(want=1)
        await rig.orchestrator.cancel(run.id, OWNER)
        assert await rig.database.write(lambda tx: fail_run(tx, run.id, FAILURE))
        assert (await rig.run(run.id)).state is RunState.CANCELLED
        assert not await rig.database.write(lambda tx: fail_run(tx, run.id, FAILURE))
        assert not await rig.database.write(lambda tx: fail_run(tx, "no run", FAILURE))

    play(scenario)


def test_a_poisoned_step_at_the_head_of_a_queue_holds_up_nobody(
    play: Callable[[Scenario], None], poison: set[str]
) -> None:
    async def scenario(rig: Rig) -> None:
        started = [await rig.start(["a"]) for _ in range(4)]
        agent, other = await rig.agent(), await rig.agent("agent-2")
        poison.update({started[0].id, started[2].id})
        first, second = await asyncio.gather(agent.pull(want=1), other.pull(want=4))
        assert sorted(offer.run.id for offer in (*first, *second)) == [started[1].id, started[3].id]
        poison.clear()
        assert [(await rig.run(run.id)).state for run in started][::2] == [RunState.FAILED, RunState.FAILED]

    play(scenario)
