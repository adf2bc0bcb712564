"""What agents say of their sandbox, what is believed of it, and what an offer and a report say of it."""

from pathlib import Path
from typing import Any

import pytest
from service_rig import NOT_FOUND, Rig, refusal, serve

from towline.v1.agent_pb2 import AgentInfo
from towline.v1.agent_service_pb2 import AttemptResult
from towline.v1.sandbox_pb2 import Sandbox
from towline_controlplane import protocol_versions
from towline_controlplane.engine.allowance import Platform
from towline_controlplane.errors import InvalidArgument
from towline_controlplane.services import agent_messages
from towline_controlplane.store import agents
from towline_dag.choices import SandboxLevel

SAID = Sandbox(
    level=Sandbox.L3,
    features=["own_root", "own_network"],
    missing=[Sandbox.MissingFeature(feature="pids_cgroup", reason="not delegated")],
    memory_enforcement="sampled",
    network_isolation="netns",
    kernel="6.18",
)


async def introduce(rig: Rig, sandbox: Sandbox) -> Any:
    agent = await rig.agent("agent-1")
    info = agent_messages.session_info(AgentInfo(slots=2, sandbox=sandbox, protocol_version=protocol_versions.CURRENT))
    await rig.database.write(lambda tx: agents.open_session(tx, agent.caller.id, agent.session_id, info, tx.now + 9**9))
    return agent


async def claimable(rig: Rig, agent: Any) -> frozenset[str]:
    """The queues that it may claim from."""
    record = await rig.database.read(lambda tx: agents.get_agent(tx, agent.caller.id))
    assert record is not None
    return await rig.orchestrator.queues.matching(record)


def test_an_admin_sees_what_an_agent_proved(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        await introduce(rig, SAID)
        shown = (await admin.call("AgentAdminService/GetAgent", agentId="agent-1")).agent
        assert shown.info.sandbox == SAID
        assert not shown.sandbox_cap

    serve(tmp_path, scenario)


def test_a_cap_is_believed_instead_until_it_is_taken_back(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user = await rig.admin(), await rig.user("ada")
        agent = await introduce(rig, SAID)
        dag = {"nodes": [{"id": "a", "type": "DELAY", "config": {"seconds": 0}, "minSandbox": "L2", "network": "NONE"}]}
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
        run = (await user.call("RunService/StartRun", workflowId=workflow.id)).run
        capped = (await admin.call("AgentAdminService/CapAgent", agentId="agent-1", level="L1")).agent
        assert (capped.sandbox_cap, capped.info.sandbox.level) == (Sandbox.L1, Sandbox.L3)
        assert await claimable(rig, agent) == frozenset()
        told = (await user.call("RunService/ExplainStep", runId=run.id, nodeId="a")).explanation.summary
        assert told == "no agent of 1 has the sandbox: agent-1 its sandbox is L1 (it says L3), and L2 is asked for"
        await admin.call("AgentAdminService/CapAgent", agentId="agent-1")
        assert len(await claimable(rig, agent)) == 1

    serve(tmp_path, scenario)


def test_only_an_agent_that_is_there_can_be_capped(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        assert (await refusal(admin.call("AgentAdminService/CapAgent", agentId="none", level="L1"))).code == NOT_FOUND

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        (Sandbox(level=Sandbox.L2, network_isolation="seccomp"), (2, "seccomp")),
        (Sandbox(level=Sandbox.L4, network_isolation="magic"), (4, "none")),
        (Sandbox(), (0, "none")),
    ],
)
def test_what_is_not_known_is_not_believed(said: Sandbox, believed: tuple[int, str]) -> None:
    info = agent_messages.session_info(AgentInfo(slots=1, sandbox=said))
    assert (info.sandbox_level, info.network_isolation) == believed


def test_what_an_agent_says_is_bounded() -> None:
    with pytest.raises(InvalidArgument):
        agent_messages.session_info(AgentInfo(slots=1, sandbox=Sandbox(features=["x"] * 65)))
    missing = Sandbox.MissingFeature(feature="f" * 999, reason="r" * 9999)
    info = agent_messages.session_info(AgentInfo(slots=1, sandbox=Sandbox(missing=[missing])))
    assert len(info.sandbox) < 1000


def test_the_sandbox_that_an_attempt_really_had_is_kept(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await introduce(rig, SAID)
        dag = {"nodes": [{"id": "a", "type": "DELAY", "config": {"seconds": 0}}]}
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
        run = (await user.call("RunService/StartRun", workflowId=workflow.id)).run
        (offer,) = await agent.pull()
        result = AttemptResult(outcome=AttemptResult.SUCCEEDED, output_json=b"null", sandbox_level=Sandbox.L3)
        result.lease.node_id, result.lease.run_id = "a", run.id
        result.lease.attempt, result.lease.epoch, result.lease.token = 1, offer.attempt.epoch, offer.token
        report = agent_messages.report(result, agent.caller)
        assert not isinstance(report, InvalidArgument)
        await rig.orchestrator.exchange((), [report], None)
        step = (await user.call("RunService/GetStep", runId=run.id, nodeId="a")).step
        assert [attempt.sandbox_level for attempt in step.attempts] == [Sandbox.L3]

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("node", "floor", "asked"),
    [
        ({}, 0, (Sandbox.L0, Sandbox.FULL, True)),
        ({"network": "NONE"}, 0, (Sandbox.L0, Sandbox.NONE, True)),
        ({"minSandbox": "L1"}, 2, (Sandbox.L2, Sandbox.FULL, True)),
        ({"type": "SHELL", "config": {"command": "true"}}, 0, (Sandbox.L0, Sandbox.FULL, False)),
    ],
)
def test_an_offer_says_what_the_attempt_must_have(
    tmp_path: Path, node: dict[str, Any], floor: int, asked: tuple[int, int, bool]
) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await introduce(rig, SAID)
        dag = {"nodes": [{"id": "a", "type": "DELAY", "config": {"seconds": 0}, **node}]}
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
        await user.call("RunService/StartRun", workflowId=workflow.id)
        (offer,) = await agent.pull()
        limits = agent_messages.AgentLimits(5.0, Platform(SandboxLevel(floor)))
        confinement = agent_messages.offer(offer, {}, limits).confinement
        assert (confinement.min_sandbox, confinement.network, confinement.network_unneeded) == asked

    serve(tmp_path, scenario)
