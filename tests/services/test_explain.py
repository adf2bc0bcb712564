"""Why a step is not running, as its owner asks."""

from pathlib import Path

from service_rig import DAG, NOT_FOUND, Caller, Rig, refusal, serve

from towline.v1.explanation_pb2 import Explanation


async def explained(user: Caller, run_id: str, node_id: str = "a") -> Explanation:
    return (await user.call("RunService/ExplainStep", runId=run_id, nodeId=node_id)).explanation


def test_a_step_is_explained_through_its_life(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        run = (await user.call("RunService/StartRun", workflowId=workflow.id)).run
        assert (await explained(user, run.id)).summary == "no agent is enrolled"
        agent = await rig.agent("agent-1")
        answer = await explained(user, run.id)
        assert answer.summary == "agent-1 may take it now; no step of its queue goes first"
        assert [(each.name, each.online, each.may_take) for each in answer.agents] == [("agent-1", True, True)]
        assert (await explained(user, run.id, "b")).summary == "waits for 1 of 1 predecessors: a (READY)"
        await user.call("RunService/PauseRun", runId=run.id)
        assert (await explained(user, run.id)).summary == "the run is paused"
        await user.call("RunService/ResumeRun", runId=run.id)
        (offer,) = await agent.pull()
        assert "offered to agent-1" in (await explained(user, run.id)).summary
        await agent.succeed(offer)
        assert (await explained(user, run.id)).summary == "it ended: SUCCEEDED"

    serve(tmp_path, scenario)


def test_explanations_are_for_those_who_see_the_run(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, other, admin = await rig.user("ada"), await rig.user("bob"), await rig.admin()
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        run = (await user.call("RunService/StartRun", workflowId=workflow.id)).run
        assert (await explained(admin, run.id)).node_id == "a"
        foreign = await refusal(explained(other, run.id))
        assert foreign.code == NOT_FOUND
        assert (await refusal(explained(user, run.id, "none"))).code == NOT_FOUND

    serve(tmp_path, scenario)
