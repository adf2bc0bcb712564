"""Deadlines, queue waits, concurrency limits and fairness, as the duties see to them."""

import asyncio
from collections.abc import Callable

import pytest
from rig import Rig, Scenario, failed, succeeded

from towline_controlplane.bus import run_topic
from towline_controlplane.errors import InvalidState
from towline_controlplane.loops.admission import Admission
from towline_controlplane.loops.deadlines import Deadlines
from towline_controlplane.model import RunState, StepState
from towline_controlplane.store import concurrency
from towline_controlplane.submissions import AdmitRun, ExpireQueueWait, TimeOutRun, Verdict


def admission(rig: Rig) -> Admission:
    return Admission(rig.database, rig.orchestrator)


def deadlines(rig: Rig) -> Deadlines:
    return Deadlines(rig.database, rig.orchestrator)


async def admitted(rig: Rig, run_ids: list[str]) -> list[bool]:
    return [(await rig.run(run_id)).admitted for run_id in run_ids]


def test_of_runs_with_a_limit_no_more_go_at_a_time(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow(["a"], concurrency={"limit": 2})
        ids = [(await rig.start_version(version)).id for _ in range(4)]
        agent, duty = await rig.agent(), admission(rig)
        assert await agent.pull() == []
        assert await duty.tick() == 2
        assert await admitted(rig, ids) == [True, True, False, False]
        assert await duty.tick() == 0
        first, second = await agent.pull()
        assert await agent.report(first) is Verdict.ACCEPTED
        assert await duty.tick() == 1
        assert await admitted(rig, ids) == [True, True, True, False]
        await rig.orchestrator.cancel(ids[2], None)
        assert await duty.tick() == 1
        await agent.report(second)
        for offer in await agent.pull():
            await agent.report(offer)
        assert [(await rig.run(i)).state for i in ids] == ["SUCCEEDED", "SUCCEEDED", "CANCELLED", "SUCCEEDED"]

    play(scenario)


def test_two_that_race_for_the_last_slot_never_both_get_it(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow(["a"], concurrency={"limit": 1})
        ids = [(await rig.start_version(version)).id for _ in range(8)]
        assert await rig.orchestrator.settle([AdmitRun(run_id) for run_id in reversed(ids)]) == 1
        group = (await rig.run(ids[0])).concurrency_group
        assert group is not None
        [holder] = await rig.database.read(lambda tx: concurrency.slot_holders(tx, group))
        assert (await rig.run(holder)).admitted
        assert sum(await admitted(rig, ids)) == 1

    play(scenario)


def test_the_more_urgent_goes_first_and_a_paused_run_takes_no_slot(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow(["a"], concurrency={"limit": 1})
        old, paused = [(await rig.start_version(version)).id for _ in range(2)]
        urgent = (await rig.start_version(version, priority=5)).id
        top = (await rig.start_version(version, priority=9)).id
        await rig.orchestrator.pause(top, None)
        await rig.orchestrator.pause(paused, None)
        await admission(rig).tick()
        assert await admitted(rig, [old, urgent, top]) == [False, True, False]
        await rig.orchestrator.cancel(urgent, None)
        await rig.orchestrator.resume(top, None)
        await admission(rig).tick()
        assert await admitted(rig, [old, top, paused]) == [False, True, False]

    play(scenario)


def test_runs_of_different_keys_do_not_share_a_limit(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow(["a"], concurrency={"key": "input.tenant", "limit": 1})
        starts = [await rig.start_version(version, input_json=f'{{"tenant":"{t}"}}') for t in "xxy"]
        assert await admission(rig).tick() == 2
        assert await admitted(rig, [run.id for run in starts]) == [True, False, True]

    play(scenario)


def test_the_duty_wakes_when_a_slot_is_freed(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        duty = admission(rig)
        rig.orchestrator.on_slots_changed = duty.alarm.wake
        running = asyncio.create_task(duty.run())
        version = await rig.workflow(["a"], concurrency={"limit": 1})
        first = await rig.start_version(version)
        second = await rig.start_version(version)
        for run_id in (first.id, second.id):
            async with rig.doorbell.listen([run_topic(run_id)]) as bell:
                while not (await rig.run(run_id)).admitted:
                    assert await bell.wait(30)
            await rig.orchestrator.cancel(run_id, None)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(scenario)


def test_a_run_past_its_deadline_times_out(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow(["a", "b"], timeoutMs=60_000)
        run = await rig.start_version(version)
        agent, duty = await rig.agent(), deadlines(rig)
        offer, _ = await agent.pull()
        await agent.start(offer)
        rig.clock.advance(59.9)
        assert await duty.tick() == 0
        rig.clock.advance(0.1)
        assert await duty.tick() == 1
        assert await duty.tick() == 0
        assert await agent.report(offer) is Verdict.ACCEPTED
        assert (await rig.run(run.id)).state is RunState.RUNNING

    play(scenario)


def test_a_step_that_nobody_takes_times_out_unless_the_run_is_held(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        nodes = [{"id": "a", "queueTimeoutMs": 5_000}]
        waiting, paused = await rig.start(nodes), await rig.start(nodes)
        await rig.orchestrator.pause(paused.id, None)
        rig.clock.advance(5)
        assert await deadlines(rig).tick() == 1
        assert (await rig.run(waiting.id)).state is RunState.FAILED
        assert (await rig.steps(waiting.id))["a"].state is StepState.TIMED_OUT
        await rig.orchestrator.resume(paused.id, None)
        assert await deadlines(rig).tick() == 0
        rig.clock.advance(5)
        assert await deadlines(rig).tick() == 1

    play(scenario)


def test_what_a_duty_found_is_judged_again(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow([{"id": "a", "queueTimeoutMs": 5_000}], timeoutMs=60_000)
        run = await rig.start_version(version)
        early = [TimeOutRun(run.id), ExpireQueueWait(run.id, "a"), AdmitRun(run.id), TimeOutRun("none")]
        assert await rig.orchestrator.settle(early) == 0
        agent = await rig.agent()
        [offer] = await agent.pull()
        rig.clock.advance(60)
        assert await rig.orchestrator.settle([ExpireQueueWait(run.id, "a")]) == 0
        await agent.report(offer)
        assert await rig.orchestrator.settle([TimeOutRun(run.id)]) == 0

    play(scenario)


def test_a_retried_run_goes_on_from_its_failed_step(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        once = {"retryConfig": {"maxAttempts": 1}}
        version = await rig.workflow(["a", {"id": "b", **once}, "c"], [("a", "b"), ("b", "c")])
        run = await rig.start_version(version)
        agent = await rig.agent()
        [first] = await agent.pull()
        await agent.report(first)
        [second] = await agent.pull()
        with pytest.raises(InvalidState, match="is RUNNING"):
            await rig.orchestrator.retry(run.id, None)
        await agent.report(second, failed("b"))
        assert (await rig.run(run.id)).state is RunState.FAILED
        assert (await rig.orchestrator.retry(run.id, None)).retries == 1
        [again] = await agent.pull()
        assert (again.step.node_id, again.attempt.number) == ("b", 2)
        assert again.attempt.execution_key != second.attempt.execution_key
        assert await agent.report(second, failed("b")) is Verdict.ACCEPTED  # a late repeat of what was accepted
        await agent.report(again)
        [last] = await agent.pull()
        await agent.report(last)
        ended = await rig.run(run.id)
        assert ended.state is RunState.SUCCEEDED
        assert [e.sequence for e in await rig.events(run.id)] == list(range(1, ended.event_count + 1))
        with pytest.raises(InvalidState, match="SUCCEEDED"):
            await rig.orchestrator.retry(run.id, None)

    play(scenario)


def test_a_run_that_ends_and_is_retried_in_one_commit_starts_over_whole(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["a", "b"], [("a", "b")])
        agent = await rig.agent()
        (a,) = await agent.pull()
        await agent.start(a)
        await rig.orchestrator.cancel(run.id, None)
        _, retried = await asyncio.gather(agent.report(a), rig.orchestrator.retry(run.id, None))
        assert (retried.state, retried.open_steps) == (RunState.PENDING, 2)
        assert (await rig.steps(run.id))["b"].open_edges == 1
        (again,) = await agent.pull()
        assert await agent.report(again) is Verdict.ACCEPTED
        assert [offer.step.node_id for offer in await agent.pull()] == ["b"]

    play(scenario)


def test_an_output_mapping_reads_steps_that_ended_in_other_commits(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        output = {"a": "${{ nodes.a.output.text }}", "b": "${{ nodes.b.state }}"}
        run = await rig.start_version(await rig.workflow(["a", "b"], output=output))
        agent = await rig.agent()
        for offer in await agent.pull():
            await agent.report(offer, succeeded(offer.step.node_id, '{"text":"hello"}'))
        ended = await rig.run(run.id)
        assert (ended.state, ended.output) == (RunState.SUCCEEDED, '{"a":"hello","b":"SUCCEEDED"}')

    play(scenario)


def test_a_single_step_of_one_owner_is_not_behind_the_thousands_of_another(play: Callable[[Scenario], None]) -> None:
    async def scenario(rig: Rig) -> None:
        crowd = await rig.start([f"n{n}" for n in range(2_000)])
        agent = await rig.agent(slots=1_000)
        assert len(await agent.pull(100)) == 100
        version = await rig.workflow(["single"])
        other = await rig.start_version(version, owner_id="owner-2")
        offers = await agent.pull(3)
        assert other.id in {offer.run.id for offer in offers}
        assert crowd.id in {offer.run.id for offer in offers}

    play(scenario)
