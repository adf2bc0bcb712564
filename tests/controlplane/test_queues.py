"""The queue of a step is there before the step, whenever its version was stored, and no start writes it again."""

import json
from collections.abc import Callable
from dataclasses import replace

from rig import FakeAgent, Rig, Scenario
from sqlalchemy import delete

from towline_controlplane.engine.allowance import Platform, ServerLimits
from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.evidence import Cause, Evidence
from towline_controlplane.handouts import StepOffer
from towline_controlplane.matching import QueueIndex
from towline_controlplane.model import AgentRecord, Failure, FailureClass, RunState
from towline_controlplane.requirements import Requirements, Size
from towline_controlplane.store import agents, queues, runs, tables
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Transaction
from towline_dag.choices import SandboxLevel

Play = Callable[[Scenario], None]
GPU = {"id": "a", "type": "NOOP", "labels": {"gpu": "yes"}, "minSandbox": "L2"}
OLD_QUEUE = "3ae3127050ce968c"
"""What labels alone, gpu=yes and zone=eu, were before plugins and sandboxes could be asked for."""


async def stored(rig: Rig) -> dict[str, Requirements]:
    return await rig.database.read(queues.all_queues)


async def record(rig: Rig, **info: object) -> AgentRecord:
    agent = await rig.agent()
    said = replace(SessionInfo(4, {}), **info)
    await rig.database.write(lambda tx: agents.open_session(tx, agent.id, agent.session_id, said, rig.clock() + 1))
    found = await rig.database.read(lambda tx: agents.get_agent(tx, agent.id))
    assert found is not None
    return found


def test_a_version_stored_long_ago_gets_its_queues_at_its_next_start(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow([GPU, "b"])
        assert await stored(rig) == {}
        run = await rig.start_version(version)
        expected = [Requirements({"gpu": "yes"}, 2, "NOOP"), Requirements(plugin="NOOP")]
        steps = await rig.steps(run.id)
        assert await stored(rig) == dict(zip((steps[node_id].queue_id for node_id in "ab"), expected, strict=True))

    play(scenario)


def test_a_second_start_writes_no_queue(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        version = await rig.workflow([GPU])
        await rig.start_version(version)
        made = await stored(rig)
        await rig.database.write(lambda tx: tx.connection.execute(delete(tables.queues)))
        await rig.start_version(version)
        assert await stored(rig) == {}
        await rig.database.write(lambda tx: queues.ensure_queues(tx, made))

    play(scenario)


def test_a_step_goes_only_to_agents_that_meet_its_requirements(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start([GPU])
        index = QueueIndex(rig.database, rig.doorbell)
        able = await record(rig, labels={"gpu": "yes"}, sandbox_level=3, plugins=("NOOP",))
        assert await index.matching(able) == (await stored(rig)).keys()
        for unable in (
            replace(able, labels={"gpu": "no"}),
            replace(able, sandbox_level=1),
            replace(able, sandbox_cap=1),
            replace(able, plugins=("SHELL",)),
        ):
            assert await index.matching(unable) == frozenset()

    play(scenario)


def test_a_floor_of_the_platform_holds_for_every_queue(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start([{"id": "a"}])
        index = QueueIndex(rig.database, rig.doorbell, Platform(SandboxLevel.L2))
        weak = await record(rig)
        assert await index.matching(weak) == frozenset()
        assert await index.matching(replace(weak, sandbox_level=2)) == (await stored(rig)).keys()

    play(scenario)


def test_a_step_without_a_network_goes_only_where_that_can_be_had(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start([{"id": "a", "network": "NONE"}])
        index = QueueIndex(rig.database, rig.doorbell)
        weak = await record(rig, sandbox_level=3)
        assert await index.matching(weak) == frozenset()
        assert await index.matching(replace(weak, network_isolation="netns")) == (await stored(rig)).keys()

    play(scenario)


def test_steps_under_an_id_of_labels_alone_stay_claimable(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start([{"id": "a", "labels": {"gpu": "yes", "zone": "eu"}}])

        def age(tx: Transaction) -> None:
            row = {"id": OLD_QUEUE, "labels": json.dumps({"gpu": "yes", "zone": "eu"})}
            tx.connection.execute(tables.queues.insert().values(row))
            steps = runs.list_steps(tx, run.id, -1, 9)
            runs.save_changes(tx, steps=[replace(step, queue_id=OLD_QUEUE) for step in steps])

        await rig.database.write(age)
        index = QueueIndex(rig.database, rig.doorbell)
        able = await record(rig, labels={"gpu": "yes", "zone": "eu"})
        assert OLD_QUEUE in await index.matching(able)
        assert OLD_QUEUE not in await index.matching(replace(able, labels={}))
        assert OLD_QUEUE not in await index.matching(replace(able, plugins=("NOOP",)))
        assert [offer.step.node_id for offer in await (await rig.agent("other")).pull()] == ["a"]

    play(scenario)


def test_a_step_that_needs_more_memory_waits_apart_from_those_that_do_not(play: Play) -> None:
    """At the head of their queue it would keep them all from agents that have not so much."""
    node = {"id": "a", "memoryLimitMb": 200, "retryConfig": {"memoryMultiplier": 4, "backoffMs": 0, "maxAttempts": 2}}

    async def scenario(rig: Rig) -> None:
        small, large = await rig.agent("small"), await rig.agent("large")
        await small.open_session(memory_bytes=512 << 20)
        await large.open_session(memory_bytes=1 << 30)
        version = await rig.workflow([node])
        run = await rig.start_version(version)
        (usual,) = await stored(rig)
        await run_out_of_memory(small, *await small.pull())
        raised = (await rig.steps(run.id))["a"]
        assert (await stored(rig)).keys() == {usual, raised.queue_id}
        assert (await stored(rig))[raised.queue_id].size == Size(1, 800)
        other = await rig.start_version(version)
        assert [offer.step.run_id for offer in await small.pull(1)] == [other.id]
        (offer,) = await large.pull(1)
        assert (offer.step.run_id, offer.allowed.memory_limit_mb) == (run.id, 800)
        await run_out_of_memory(large, offer)
        assert (await rig.run(run.id)).state is RunState.FAILED
        await rig.orchestrator.retry(run.id, None)
        again = (await rig.steps(run.id))["a"]
        assert (again.queue_id, again.memory_limit_mb) == (usual, 0)

    play(scenario)


def test_what_the_server_allows_decides_who_may_claim_and_not_what_was_asked_for(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.start([{"id": "a", "memoryLimitMb": 8_000}])
        (queue_id,) = await stored(rig)
        index = QueueIndex(rig.database, rig.doorbell, Platform(limits=ServerLimits(most_memory_mb=1_000)))
        agent = await record(rig, memory_bytes=1 << 30)
        assert await index.matching(agent) == {queue_id}
        assert index.sizes == {queue_id: Size(1, 1_000)}
        assert await index.matching(replace(agent, memory_bytes=512 << 20)) == frozenset()

    play(scenario)


async def run_out_of_memory(agent: FakeAgent, offer: StepOffer) -> None:
    failure = Failure(FailureClass.PERMANENT, "MEMORY_LIMIT", "used more memory than allowed")
    node_id, evidence = offer.step.node_id, Evidence(Cause.MEMORY_LIMIT)
    await agent.report(offer, EndAttempt(node_id, Outcome.FAILED, digest="d", failure=failure, evidence=evidence))
