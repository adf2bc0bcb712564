"""The evidence of a death: what is taken from agents, what is kept, what users see."""

import json
import math
from pathlib import Path

from google.protobuf import json_format
from service_rig import Rig, RigAgent, serve

from towline.v1.agent_service_pb2 import AttemptResult
from towline.v1.run_pb2 import Evidence, Failure, Step
from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.evidence import Cause
from towline_controlplane.evidence import Evidence as Row
from towline_controlplane.handouts import StepOffer
from towline_controlplane.loops.deadlines import Deadlines
from towline_controlplane.model import Failure as FailureRow
from towline_controlplane.model import FailureClass
from towline_controlplane.services import evidence_messages
from towline_controlplane.submissions import Report


def a_result(**facts: object) -> AttemptResult:
    result = AttemptResult(outcome=AttemptResult.FAILED, failure=Failure(code="MEMORY_LIMIT"))
    json_format.ParseDict(facts, result.evidence)
    return result


def test_what_an_agent_saw_comes_back_as_it_was() -> None:
    facts = {
        "cause": "MEMORY_LIMIT",
        "memoryLimitBytes": "1000",
        "peakMemoryBytes": "1001",
        "memoryEnforcement": "CGROUP",
        "sampleInterval": "0.100s",
        "samples": [{"offset": "0.050s", "memoryBytes": "7", "cpuSeconds": 0.5}],
        "signal": 9,
        "signalName": "SIGKILL",
        "sender": "KERNEL",
        "killedProcesses": 2,
        "lastStdout": ["a", "b"],
        "lastStderr": ["ä"],
    }
    row = evidence_messages.stored(a_result(**facts))
    told = evidence_messages.message(row)
    assert row.cause is Cause.MEMORY_LIMIT
    assert told is not None
    assert json_format.MessageToDict(told) == facts


def test_exit_code_0_is_told_and_the_timeout_follows_from_the_cause() -> None:
    told = evidence_messages.message(evidence_messages.stored(a_result(cause="WALL_TIMEOUT", exitCode=0)))
    assert told is not None
    assert told.HasField("exit_code")
    assert told.timeout == Evidence.WALL


def test_an_agent_that_sends_no_evidence_is_understood_by_its_code() -> None:
    for code, cause in (("TIMEOUT", Cause.WALL_TIMEOUT), ("SIGNAL", Cause.SIGNAL), ("BUSY", Cause.PLUGIN_ERROR)):
        result = AttemptResult(outcome=AttemptResult.FAILED, failure=Failure(code=code))
        assert evidence_messages.stored(result).cause is cause


def test_evidence_is_bounded() -> None:
    result = a_result(lastStderr=["x" * 10_000] * 100, signalName="S" * 100)
    result.evidence.cause = 99  # pyright: ignore[reportAttributeAccessIssue] - of a later release
    for offset in range(500):
        result.evidence.samples.add(memory_bytes=1).offset.FromSeconds(offset)
    result.evidence.samples.add(cpu_seconds=math.inf)
    result.evidence.samples.add(memory_bytes=-1)
    row = evidence_messages.stored(result)
    facts = json.loads(row.facts)
    assert row.cause is Cause.MEMORY_LIMIT  # by the code of the failure
    assert len(facts["samples"]) == 58
    assert sum(map(len, facts["lastStderr"])) <= 4096
    assert len(row.facts) < 12_000


async def _report(agent: RigAgent, offer: StepOffer, evidence: Row) -> None:
    failure = FailureRow(FailureClass.PERMANENT, evidence.cause.value, "used more memory than allowed")
    end = EndAttempt(offer.step.node_id, Outcome.FAILED, digest="d", failure=failure, evidence=evidence)
    await agent.rig.orchestrator.exchange((), [Report(agent.lease(offer), end)], None)


def test_users_see_why_each_attempt_died_and_memory_is_raised_after_it(tmp_path: Path) -> None:
    dag = {
        "nodes": [
            {
                "id": "a",
                "type": "DELAY",
                "config": {"seconds": 0},
                "memoryLimitMb": 100,
                "limits": {"processes": 7},
                "retryConfig": {"memoryMultiplier": 2, "maxMemoryMb": 150, "backoffMs": 0},
            }
        ]
    }

    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        created = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
        (node,) = created.dag.nodes
        assert (node.limits.processes, node.retry_config.memory_multiplier) == (7, 2)
        run_id = (await user.call("RunService/StartRun", workflowId=created.id)).run.id
        limits: list[int] = []
        while offers := await agent.pull():
            (offer,) = offers
            limits.append(offer.allowed.memory_limit_mb)
            assert offer.allowed.rest.processes == 7
            await _report(agent, offer, Row(Cause.MEMORY_LIMIT, '{"peakMemoryBytes":"5"}'))
        step = (await user.call("RunService/GetStep", runId=run_id, nodeId="a")).step
        assert limits == [100, 150]
        assert step.state == Step.FAILED
        assert [attempt.memory_limit_mb for attempt in step.attempts] == limits
        assert [attempt.evidence.cause for attempt in step.attempts] == [Evidence.MEMORY_LIMIT] * 2
        assert [attempt.evidence.peak_memory_bytes for attempt in step.attempts] == [5, 5]

    serve(tmp_path, scenario)


def test_users_see_why_a_step_that_was_never_handed_out_timed_out(tmp_path: Path) -> None:
    dag = {"nodes": [{"id": "a", "type": "DELAY", "config": {"seconds": 0}, "queueTimeoutMs": 1}]}

    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        created = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
        run_id = (await user.call("RunService/StartRun", workflowId=created.id)).run.id
        while not await Deadlines(rig.database, rig.orchestrator).tick():
            pass  # a millisecond of the database's clock
        step = (await user.call("RunService/GetStep", runId=run_id, nodeId="a")).step
        assert (step.state, list(step.attempts)) == (Step.TIMED_OUT, [])
        assert (step.error.code, step.error.cause) == ("QUEUE_TIMEOUT", "it was never handed out")
        assert (step.evidence.cause, step.evidence.timeout) == (Evidence.QUEUE_TIMEOUT, Evidence.QUEUE)
        (listed,) = (await user.call("RunService/ListSteps", runId=run_id)).steps
        assert listed.evidence == step.evidence
        run = (await user.call("RunService/GetRun", runId=run_id)).run
        assert (run.error.code, run.error.cause) == ("QUEUE_TIMEOUT", "it was never handed out")

    serve(tmp_path, scenario)


def test_users_see_that_an_attempt_ended_with_a_quarantined_run(tmp_path: Path) -> None:
    dag = {"nodes": [{"id": name, "type": "DELAY", "config": {"seconds": 0}} for name in "ab"]}

    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        created = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
        run_id = (await user.call("RunService/StartRun", workflowId=created.id)).run.id
        await agent.pull()
        assert await rig.orchestrator.quarantine(run_id, ZeroDivisionError("a defect"))
        run = (await user.call("RunService/GetRun", runId=run_id)).run
        assert (run.error.code, run.error.cause) == ("INTERNAL", "ZeroDivisionError")
        for name in "ab":
            step = (await user.call("RunService/GetStep", runId=run_id, nodeId=name)).step
            assert step.state == Step.CANCELLED
            assert [attempt.evidence.cause for attempt in step.attempts] == [Evidence.INTERNAL]

    serve(tmp_path, scenario)
