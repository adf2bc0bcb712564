"""Agents as an admin sees and steers them."""

from pathlib import Path

import pytest
from service_rig import DAG, NOT_FOUND, UNAUTHENTICATED, Rig, refusal, serve

from towline_controlplane.enrollment import enroll
from towline_controlplane.errors import AlreadyExists, Unauthenticated
from towline_controlplane.model import AgentRecord
from towline_controlplane.sessions import Sessions
from towline_controlplane.store import agents
from towline_controlplane.store.agents import SessionInfo
from towline_dag.choices import SandboxLevel


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


def test_a_disabled_agent_is_refused_and_what_it_held_goes_elsewhere(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, user, agent = await rig.admin(), await rig.user("ada"), await rig.agent("agent-1")
        other = await rig.agent("agent-2")
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        await user.call("RunService/StartRun", workflowId=workflow.id)
        [held] = await agent.pull()
        for _ in range(2):
            disabled = (await admin.call("AgentAdminService/DisableAgent", agentId="agent-1")).agent
            assert (disabled.disabled, disabled.running) == (True, 0)
        assert (await refusal(agent.caller.call("AgentService/Pull"))).code == UNAUTHENTICATED
        assert await agent.pull() == []
        [again] = await other.pull()
        assert (again.step.node_id, again.attempt.number) == (held.step.node_id, 2)
        assert not (await admin.call("AgentAdminService/EnableAgent", agentId="agent-1")).agent.disabled
        assert (await refusal(agent.caller.call("AgentService/Pull"))).code != UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_an_agents_old_credential_counts_until_the_new_one_is_used(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin, agent = await rig.admin(), await rig.agent("agent-1")
        sessions = Sessions(rig.database, 30.0)

        async def record() -> AgentRecord:
            found = await rig.database.read(lambda tx: agents.get_agent(tx, agent.caller.id))
            assert found is not None
            return found

        assert await sessions.next_credential(await record()) == ""
        await admin.call("AgentAdminService/RotateAgent", agentId="agent-1")
        new = await sessions.next_credential(await record())
        assert new.startswith("twa_")
        assert await sessions.next_credential(await record()) == ""  # until this one must have been lost
        assert (await rig.accounts.agent_of(agent.caller.credential)).id == agent.caller.id
        for _ in range(2):
            assert (await rig.accounts.agent_of(new)).id == agent.caller.id
        with pytest.raises(Unauthenticated):
            await rig.accounts.agent_of(agent.caller.credential)

    serve(tmp_path, scenario)


def test_a_credential_of_the_configured_age_is_replaced(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        made = await (await rig.admin()).call("AgentAdminService/CreateEnrollmentToken")
        _, credential = await enroll(rig.database, made.token, "agent-1", credential_days=1)
        found = await rig.accounts.agent_of(credential)
        assert found.rotation_time - found.create_time == 24 * 3600 * 1_000_000
        assert await Sessions(rig.database, 30.0).next_credential(found) == ""

    serve(tmp_path, scenario)


def test_enrollment_tokens_are_listed_and_revoked(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        made = [await admin.call("AgentAdminService/CreateEnrollmentToken", uses=uses) for uses in (1, 3)]
        listed = (await admin.call("AgentAdminService/ListEnrollmentTokens")).tokens
        assert sorted((each.id, each.uses_left) for each in listed) == sorted(
            zip((each.id for each in made), (1, 3), strict=True)
        )
        assert not any(each.token in str(listed) for each in made)
        await enroll(rig.database, made[0].token, "agent-1")
        await admin.call("AgentAdminService/RevokeEnrollmentToken", tokenId=made[1].id)
        assert list((await admin.call("AgentAdminService/ListEnrollmentTokens")).tokens) == []
        with pytest.raises(Unauthenticated):
            await enroll(rig.database, made[1].token, "agent-2")
        for unknown in (made[1].id, "", "x" * 99):
            refused = await refusal(admin.call("AgentAdminService/RevokeEnrollmentToken", tokenId=unknown))
            assert refused.code == NOT_FOUND

    serve(tmp_path, scenario)


def test_a_name_is_enrolled_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        made = await (await rig.admin()).call("AgentAdminService/CreateEnrollmentToken", uses=2)
        await enroll(rig.database, made.token, "agent-1")
        with pytest.raises(AlreadyExists, match="agent-1"):
            await enroll(rig.database, made.token, "agent-1")
        await enroll(rig.database, made.token, "agent-2")  # the refusal has cost no use

    serve(tmp_path, scenario)
