"""An explanation and the claim never disagree: who is said to be able to take a step now is given it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import Rig, Scenario

from towline_controlplane.engine import placement
from towline_controlplane.engine.allowance import Platform, ServerLimits
from towline_controlplane.engine.explain import explain
from towline_controlplane.fairness import FairShares
from towline_controlplane.handouts import serve
from towline_controlplane.ledger import Ledger
from towline_controlplane.matching import QueueIndex
from towline_controlplane.model import AgentRecord, RunState, Step
from towline_controlplane.rooms import Claim
from towline_controlplane.saving import Saving
from towline_controlplane.services.explanations import situation_of
from towline_controlplane.store import agents, queues, run_lists, runs
from towline_controlplane.store.agents import SessionInfo
from towline_controlplane.store.database import Transaction
from towline_controlplane.views import Views

Play = Callable[[Scenario], None]
NODES: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "gpu": {"labels": {"gpu": "yes"}},
    "strong": {"minSandbox": "L2"},
    "both": {"labels": {"gpu": "yes"}, "minSandbox": "L1"},
    "large": {"memoryLimitMb": 3_000},
    "raised": {"memoryLimitMb": 200, "retryConfig": {"memoryMultiplier": 4}},
}
RAISED_MB = 800
infos = st.builds(
    SessionInfo,
    slots=st.integers(1, 4),
    labels=st.sampled_from([{}, {"gpu": "yes"}]),
    sandbox_level=st.integers(0, 3),
    plugins=st.sampled_from([(), ("NOOP",), ("SHELL",)]),
    memory_bytes=st.sampled_from([0, 400 << 20, 700 << 20, 2 << 30, 4 << 30]),
)
platforms = st.builds(Platform, limits=st.builds(ServerLimits, most_memory_mb=st.sampled_from([0, 300, 1_000])))
agent_states = st.tuples(infos, st.booleans(), st.booleans(), st.integers(0, 2))
step_changes = st.fixed_dictionaries(
    {"held": st.booleans(), "later": st.booleans(), "priority": st.integers(-1, 1), "fair_key": st.integers(0, 3)}
)


class _Undo(Exception):
    pass


async def said(rig: Rig, agent_id: str, platform: Platform) -> set[tuple[str, str]]:
    """Returns the steps that the agent may take now, by their explanations."""

    def read(tx: Transaction) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for run in run_lists.list_runs(tx, run_lists.RunFilter(), None, 100):
            for step in runs.list_steps(tx, run.id, -1, 100):
                verdicts = explain(situation_of(tx, run, step, platform)).agents
                if any(each.may_take for each in verdicts if each.agent.id == agent_id):
                    found.add((run.id, step.node_id))
        return found

    return await rig.database.read(read)


async def given_to(rig: Rig, agent: AgentRecord, platform: Platform, *, any_number: bool) -> set[tuple[str, str]]:
    """Returns what a claim gives the agent, and takes it back; with `any_number` it has slots for everything."""
    index = QueueIndex(rig.database, rig.doorbell, platform)
    queue_ids = await index.matching(agent)
    claim = Claim(agent.id, agent.session_id or "", queue_ids, 100, 5.0, index.sizes, limits=platform.limits)
    got: set[tuple[str, str]] = set()

    def lease(tx: Transaction) -> None:
        ledger = Ledger(tx, rig.orchestrator.blueprints, FairShares(), Views(), lambda: 0.5)
        steps = ledger.claimable(queue_ids, 100, 0.5)
        (served,) = serve(ledger, [claim], lambda: "token", lambda: 0.5, Saving())
        given = steps if any_number and served.room else [offer.step for offer in served.offers]
        got.update((step.run_id, step.node_id) for step in given)
        raise _Undo

    try:
        await rig.database.write(lease)
    except _Undo:
        return got
    raise AssertionError("the claim was kept")


async def raised(rig: Rig, step: Step) -> Step:
    """Returns a step as after an attempt that ran out of memory."""
    asked = (await rig.database.read(queues.all_queues))[step.queue_id].with_memory(RAISED_MB)
    queue_id = placement.queue_id(asked)
    await rig.database.write(lambda tx: queues.ensure_queues(tx, {queue_id: asked}))
    return replace(step, memory_limit_mb=RAISED_MB, queue_id=queue_id)


async def prepare(rig: Rig, data: st.DataObject) -> list[str]:
    ids: list[str] = []
    for _ in range(data.draw(st.integers(1, 3), label="runs")):
        run = await rig.start([{"id": name, **node} for name, node in NODES.items()])
        paused = data.draw(st.booleans(), label="paused")
        steps = await rig.steps(run.id)
        changed = [
            replace(
                steps[name],
                held=change["held"] or paused,
                not_before=rig.clock() + 1 if change["later"] else 0,
                priority=change["priority"],
                fair_key=change["fair_key"],
            )
            for name in NODES
            for change in (data.draw(step_changes, label=name),)
        ]
        changed[-1] = await raised(rig, changed[-1])
        state = RunState.PAUSED if paused else RunState.PENDING
        rows = [replace(run, state=state, event_count=run.event_count + 1)]
        await rig.database.write(lambda tx, r=rows, s=changed: runs.save_changes(tx, r, s))
    for number, (info, drained, online, held) in enumerate(data.draw(st.lists(agent_states, min_size=1, max_size=3))):
        agent = await rig.agent(f"agent-{number}")
        for _ in range(held):
            await agent.pull(1)
        expire = rig.clock() + 1 if online else rig.clock()
        session = agent.session_id
        await rig.database.write(
            lambda tx, a=agent.id, s=session, i=info, e=expire: agents.open_session(tx, a, s, i, e)
        )
        await rig.database.write(lambda tx, a=agent.id, d=drained: agents.set_drained(tx, a, drained=d))
        ids.append(agent.id)
    return ids


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_who_is_said_to_be_able_to_take_a_step_is_given_it(fresh: Play, data: st.DataObject) -> None:
    async def scenario(rig: Rig) -> None:
        platform = data.draw(platforms)
        for agent_id in await prepare(rig, data):
            listed = await rig.database.read(lambda tx, a=agent_id: agents.find_agent(tx, a))
            assert listed is not None
            able = await said(rig, agent_id, platform)
            assert await given_to(rig, listed.agent, platform, any_number=True) == able
            given = await given_to(rig, listed.agent, platform, any_number=False)
            assert given <= able
            assert len(given) == min(max(listed.agent.slots - listed.running, 0), len(able))

    fresh(scenario)
