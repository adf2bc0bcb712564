"""Agents as an admin sees and steers them."""

from pathlib import Path

from service_rig import DAG, NOT_FOUND, Rig, refusal, serve

from towline_controlplane.requirements import SandboxLevel
from towline_controlplane.store import agents
from towline_controlplane.store.agents import SessionInfo


def test_an_agent_is_drained_and_undrained_by_its_name_or_id(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user, agent = await rig.admin(), await rig.user("ada"), await rig.agent("agent-1")
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        await user.call("RunService/StartRun", workflowId=workflow.id)
        for key in ("agent-1", "id-of-agent-1"):
            drained = (await admin.call("AgentAdminService/DrainAgent", agentId=key)).agent
            assert (drained.id, drained.drained, drained.running) == ("id-of-agent-1", True, 0)
            assert await agent.pull() == []
        (listed,) = (await admin.call("AgentAdminService/ListAgents")).agents
        assert listed == (await admin.call("AgentAdminService/GetAgent", agentId="agent-1")).agent == drained
        assert not (await admin.call("AgentAdminService/UndrainAgent", agentId="agent-1")).agent.drained
        assert len(await agent.pull()) == 1
        assert (await admin.call("AgentAdminService/DrainAgent", agentId="agent-1")).agent.running == 1

    serve(tmp_path, scenario)


def test_an_agent_shows_its_sandbox_and_its_plugins(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, agent = await rig.admin(), await rig.agent("agent-1")
        info = SessionInfo(2, {}, sandbox_level=SandboxLevel.L3, plugins=["DELAY", "SHELL"])
        await rig.database.write(
            lambda tx: agents.open_session(tx, agent.caller.id, agent.session_id, info, tx.now + 9)
        )
        shown = (await admin.call("AgentAdminService/GetAgent", agentId="agent-1")).agent
        assert (shown.info.sandbox.level, list(shown.info.plugins)) == (4, ["DELAY", "SHELL"])

    serve(tmp_path, scenario)


def test_an_unknown_agent_is_not_found(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        for method in ("GetAgent", "DrainAgent", "UndrainAgent"):
            assert (await refusal(admin.call(f"AgentAdminService/{method}", agentId="none"))).code == NOT_FOUND

    serve(tmp_path, scenario)
