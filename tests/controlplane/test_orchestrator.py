"""What the committer guarantees, over a real store."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from rig import Rig, Scenario, failed, succeeded

from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.errors import IdempotencyKeyReused, InvalidState, NotFound, Unavailable
from towline_controlplane.ledger import Ledger, Needs
from towline_controlplane.model import Failure, FailureClass, Lease, Output, RunState, StepState
from towline_controlplane.orchestrator import Orchestrator
from towline_controlplane.store.database import Transaction
from towline_controlplane.submissions import Verdict


def test_a_chain_moves_one_hop_per_report(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "b", "c"], [("a", "b"), ("b", "c")])
        agent = await rig.agent()
        offers = await agent.pull()
        for node_id in ("a", "b", "c"):
            assert [offer.step.node_id for offer in offers] == [node_id]
            claim = await agent.claim()
            verdicts, served = await rig.orchestrator.exchange((), [agent.result(offers[0])], claim)
            offers = list(served.offers)
            assert verdicts == [Verdict.ACCEPTED]
        assert (await rig.run(run.id)).state is RunState.SUCCEEDED

    play(scenario)


def test_inputs_are_the_outputs_of_the_predecessors(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a", "b", "c"], [("a", "c"), ("b", "c")])
        agent = await rig.agent()
        for offer in await agent.pull():
            await agent.report(offer, succeeded(offer.step.node_id, f'{{"from":"{offer.step.node_id}"}}'))
        (offer,) = await agent.pull()
        assert offer.inputs == {"a": Output('{"from":"a"}'), "b": Output('{"from":"b"}')}

    play(scenario)


def test_a_repeated_report_is_accepted_and_changes_nothing(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        assert await agent.report(offer) is Verdict.ACCEPTED
        before = await rig.events(run.id)
        assert await agent.report(offer) is Verdict.ACCEPTED
        assert await agent.report(offer, failed("a")) is Verdict.ALREADY_REPORTED
        assert await rig.events(run.id) == before

    play(scenario)


def test_an_expired_offer_goes_back_without_costing_a_retry(play: Callable[[Scenario], None]) -> None:
    from towline_controlplane.loops.offer_expiry import OfferExpiry

    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent, expiry = await rig.agent(), OfferExpiry(rig.database, rig.orchestrator, 0)
        (first,) = await agent.pull()
        assert await expiry.tick() == 0
        rig.clock.advance(5)
        assert await expiry.tick() == 1
        assert await expiry.tick() == 0
        (second,) = await agent.pull()
        assert (second.attempt.number, second.attempt.epoch) == (1, 2)
        assert await agent.report(first) is Verdict.LEASE_LOST
        assert await agent.report(second) is Verdict.ACCEPTED

    play(scenario)


def test_a_confirmed_offer_does_not_expire(play: Callable[[Scenario], None]) -> None:
    from towline_controlplane.loops.offer_expiry import OfferExpiry

    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.start(offer)
        rig.clock.advance(60)
        assert await OfferExpiry(rig.database, rig.orchestrator, 0).tick() == 0
        assert await agent.report(offer) is Verdict.ACCEPTED

    play(scenario)


def test_a_retry_waits_for_its_backoff(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start([{"id": "a", "retryConfig": {"maxAttempts": 2, "backoffMs": 1000}}])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.report(offer, failed("a"))
        assert await agent.pull() == []
        rig.clock.advance(0.5)
        (again,) = await agent.pull()
        assert again.attempt.number == 2
        await agent.report(again, failed("a"))
        ended = await rig.run(run.id)
        assert ended.state is RunState.FAILED
        assert ended.error is not None
        assert ended.error.message == "step 'a' failed: it broke"

    play(scenario)


def test_a_permanent_failure_is_not_retried(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "b"], [("a", "b")])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        await agent.report(offer, failed("a", FailureClass.PERMANENT))
        states = {step.node_id: step.state for step in (await rig.steps(run.id)).values()}
        assert states == {"a": StepState.FAILED, "b": StepState.SKIPPED}

    play(scenario)


def test_racing_starts_with_one_key_make_one_run(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow(["a"])
        started = await asyncio.gather(*[rig.start_version(version, "k", "d") for _ in range(20)])
        assert len({run.id for run in started}) == 1
        with pytest.raises(IdempotencyKeyReused):
            await rig.start_version(version, "k", "other")

    play(scenario)


def test_pause_gates_and_resume_opens(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "b"], [("a", "b")])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        for _ in range(2):
            assert (await rig.orchestrator.pause(run.id, None)).state is RunState.PAUSED
        assert await agent.report(offer) is Verdict.ACCEPTED
        assert await agent.pull() == []
        assert (await rig.orchestrator.resume(run.id, None)).state is RunState.RUNNING
        (offer,) = await agent.pull()
        await agent.report(offer)
        assert (await rig.run(run.id)).state is RunState.SUCCEEDED
        with pytest.raises(InvalidState):
            await rig.orchestrator.pause(run.id, None)

    play(scenario)


def test_cancel_ends_what_is_open_and_records_late_results_as_cancelled(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "b", "c"], [("a", "b")])
        agent = await rig.agent()
        offers = {offer.step.node_id: offer for offer in await agent.pull()}
        await agent.report(offers["c"])
        assert (await rig.orchestrator.cancel(run.id, None)).cancel_requested
        assert await agent.report(offers["a"]) is Verdict.ACCEPTED
        states = {step.node_id: step.state for step in (await rig.steps(run.id)).values()}
        assert states == {"a": StepState.CANCELLED, "b": StepState.CANCELLED, "c": StepState.SUCCEEDED}
        assert (await rig.run(run.id)).state is RunState.CANCELLED
        assert (await rig.orchestrator.cancel(run.id, None)).state is RunState.CANCELLED

    play(scenario)


def test_others_runs_are_not_found(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a"])
        for steer in (rig.orchestrator.pause, rig.orchestrator.resume, rig.orchestrator.cancel):
            with pytest.raises(NotFound):
                await steer(run.id, "somebody-else")

    play(scenario)


@dataclass(frozen=True, slots=True)
class Poison:
    """A submission that breaks its commit."""

    needs: Needs = field(default_factory=Needs)

    def decide(self, ledger: Ledger) -> object:
        raise ZeroDivisionError


def test_a_poisoned_submission_fails_alone(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        agent = await rig.agent()
        runs = [await rig.start(["a"]) for _ in range(5)]
        offers = await agent.pull()
        poisoned = rig.orchestrator._submissions.add(Poison())  # pyright: ignore[reportPrivateUsage]
        verdicts = await asyncio.gather(*[agent.report(offer) for offer in offers])
        assert verdicts == [Verdict.ACCEPTED] * 5
        with pytest.raises(ZeroDivisionError):
            await poisoned
        assert {(await rig.run(run.id)).state for run in runs} == {RunState.SUCCEEDED}

    play(scenario)


def test_claims_are_served_however_much_is_submitted(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a"])
        agent = await rig.agent()
        stale = Lease("no-run", "a", 1, 1, "", agent.id)
        answered: list[str] = []
        claim = asyncio.ensure_future(rig.orchestrator.exchange((), (), await agent.claim()))
        claim.add_done_callback(lambda _: answered.append("claim"))
        confirming = [asyncio.ensure_future(rig.orchestrator.confirm([stale])) for _ in range(2000)]
        for each in confirming:
            each.add_done_callback(lambda _: answered.append("confirmation"))
        await asyncio.gather(claim, *confirming)
        _, served = claim.result()
        assert len(served.offers) == 1
        assert answered[-1] == "confirmation"

    play(scenario)


def test_many_agents_share_a_fan_out_without_doubling_a_step(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        middle = [f"m{i}" for i in range(200)]
        edges = [("root", m) for m in middle] + [(m, "join") for m in middle]
        run = await rig.start(["root", *middle, "join"], edges)
        executed: list[str] = []

        async def work(name: str) -> None:
            agent = await rig.agent(name)
            while (await rig.run(run.id)).state in (RunState.PENDING, RunState.RUNNING):
                offers = await agent.pull(3)
                executed.extend(offer.step.node_id for offer in offers)
                await asyncio.gather(*[agent.report(offer) for offer in offers])

        await asyncio.gather(*[work(f"agent-{i}") for i in range(6)])
        assert sorted(executed) == sorted(["root", *middle, "join"])
        assert (await rig.run(run.id)).state is RunState.SUCCEEDED

    play(scenario)


def test_an_agent_that_has_to_leave_an_attempt_costs_no_retry(play: Callable[[Scenario], None]) -> None:
    left = EndAttempt("a", Outcome.LOST, "left", failure=Failure(FailureClass.TRANSIENT, "AGENT_LOST", "shut down"))

    async def scenario(rig: Rig) -> None:
        run = await rig.start([{"id": "a", "retryConfig": {"maxAttempts": 1}}])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        assert await agent.report(offer, left) is Verdict.ACCEPTED
        assert await agent.report(offer, left) is Verdict.ACCEPTED
        (again,) = await agent.pull()
        assert (again.attempt.number, (await rig.steps(run.id))["a"].losses) == (2, 1)
        await agent.report(again)
        assert (await rig.run(run.id)).state is RunState.SUCCEEDED

    play(scenario)


def test_a_late_confirmation_dates_the_start_by_what_the_agent_measured(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a"])
        agent = await rig.agent()
        (offer,) = await agent.pull()
        rig.clock.advance(3)
        await agent.report(offer, EndAttempt("a", Outcome.SUCCEEDED, "ok", output="1", elapsed_us=2_000_000))
        step = (await rig.steps(run.id))["a"]
        assert step.start_time is not None
        assert step.end_time is not None
        assert step.end_time - step.start_time == 2_000_000

    play(scenario)


def test_a_round_of_report_and_claim_is_one_commit(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start(["a", "b"], [("a", "b")])
        agent = await rig.agent()
        [offer] = await agent.pull()
        commits = _count_writes(rig)
        claim = await agent.claim()
        _, served = await rig.orchestrator.exchange((), [agent.result(offer)], claim)
        assert [following.step.node_id for following in served.offers] == ["b"]
        assert len(commits) == 1

    play(scenario)


def test_what_another_replica_did_to_a_run_is_seen(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        other = Orchestrator(rig.database, rig.doorbell)
        committing = asyncio.create_task(other.run())
        agent = await rig.agent()
        run = await rig.start(["a", "b", "c", "d"], [("a", "b"), ("b", "c"), ("c", "d")])
        first = rig.orchestrator
        for turn in range(4):
            rig.orchestrator = (first, other, other, first)[turn]
            [offer] = await agent.pull()
            rig.orchestrator = (other, other, first, first)[turn]
            assert await agent.report(offer) is Verdict.ACCEPTED
        assert (await rig.run(run.id)).state is RunState.SUCCEEDED
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)

    play(scenario)


def test_a_commit_that_failed_is_not_remembered(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        agent = await rig.agent()
        run = await rig.start(["a", "b"], [("a", "b")])
        [offer] = await agent.pull()
        write = rig.database.write

        async def lose_the_commit(work: Callable[[Transaction], object]) -> object:
            def broken(tx: Transaction) -> object:
                work(tx)
                raise Unavailable("the disk is full")

            return await write(broken)

        rig.database.write = lose_the_commit  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await rig.orchestrator.confirm([agent.lease(offer)])
        rig.database.write = write
        assert (await rig.steps(run.id))["a"].start_time is None
        await agent.start(offer)
        assert (await rig.steps(run.id))["a"].start_time is not None
        assert await agent.report(offer) is Verdict.ACCEPTED

    play(scenario)


def _count_writes(rig: Rig) -> list[None]:
    commits: list[None] = []
    write = rig.database.write

    async def counted(work: Callable[[Transaction], object]) -> object:
        commits.append(None)
        return await write(work)

    rig.database.write = counted  # type: ignore[method-assign]
    return commits
