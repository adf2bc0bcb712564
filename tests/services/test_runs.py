"""Starting, steering and reading runs."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from service_rig import DAG, INVALID_ARGUMENT, NOT_FOUND, UPPERCASE, Caller, Rig, refusal, serve

from towline.v1.run_pb2 import Run, Step
from towline.v1.run_service_pb2 import StartRunRequest

FAN = {
    "nodes": [UPPERCASE, {**UPPERCASE, "id": "b"}, {**UPPERCASE, "id": "c"}],
    "edges": [{"from": "a", "to": "b"}, {"from": "a", "to": "c"}],
}


async def _workflow(caller: Caller, dag: Any = DAG) -> str:
    return (await caller.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow.id


def test_a_run_carries_what_it_was_started_with(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id = await _workflow(user)
        given = {"input": {"text": "hello", "n": [1, 2.5, None, True]}, "priority": -7, "labels": {"team": "x"}}
        run = (await user.call("RunService/StartRun", workflowId=workflow_id, **given)).run
        assert (run.state, run.owner_id, run.priority) == (Run.PENDING, user.id, -7)
        assert dict(run.labels) == {"team": "x"}
        assert run.input.struct_value["text"] == "hello"
        assert not run.HasField("output")
        assert (await user.call("RunService/GetRun", runId=run.id)).run == run

    serve(tmp_path, scenario)


def test_the_output_of_a_run_is_that_of_its_last_steps(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = (await user.call("RunService/StartRun", workflowId=await _workflow(user, FAN))).run.id
        await agent.succeed_all('{"text":"HELLO"}')
        run = (await user.call("RunService/GetRun", runId=run_id)).run
        assert run.state == Run.SUCCEEDED
        assert {key: dict(value) for key, value in run.output.struct_value.items()} == {
            "b": {"text": "HELLO"},
            "c": {"text": "HELLO"},
        }
        listed = (await user.call("RunService/ListRuns", state="SUCCEEDED")).runs
        assert [(each.id, each.HasField("output")) for each in listed] == [(run_id, False)]
        assert not (await user.call("RunService/ListRuns", state="FAILED")).runs

    serve(tmp_path, scenario)


def test_steps_name_their_attempts(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = (await user.call("RunService/StartRun", workflowId=await _workflow(user))).run.id
        await agent.pull()
        steps = (await user.call("RunService/ListSteps", runId=run_id)).steps
        assert [(step.node_id, step.state, step.type) for step in steps] == [
            ("a", Step.LEASED, "TEXT_TRANSFORM"),
            ("b", Step.WAITING, "TEXT_TRANSFORM"),
        ]
        assert steps[0].execution_key == hashlib.sha256(f"{run_id}:a:0".encode()).hexdigest()
        assert steps[1].execution_key == ""
        step = (await user.call("RunService/GetStep", runId=run_id, nodeId="a")).step
        assert [(attempt.number, attempt.agent_id) for attempt in step.attempts] == [(1, agent.caller.id)]
        assert (await refusal(user.call("RunService/GetStep", runId=run_id, nodeId="z"))).code == NOT_FOUND

    serve(tmp_path, scenario)


def test_a_run_takes_the_given_the_pinned_or_the_newest_version(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id = await _workflow(user)
        for _ in range(2):
            await user.call("WorkflowService/CreateWorkflowVersion", workflowId=workflow_id, dag=DAG)
        third, second, first = (
            await user.call("WorkflowService/ListWorkflowVersions", workflowId=workflow_id)
        ).versions

        async def started(**fields: str) -> str:
            return (await user.call("RunService/StartRun", workflowId=workflow_id, **fields)).run.version_id

        assert await started() == third.id
        await user.call("WorkflowService/PinWorkflowVersion", workflowId=workflow_id, versionId=second.id)
        assert await started() == second.id
        assert await started(versionId=first.id) == first.id

    serve(tmp_path, scenario)


def test_a_request_id_starts_one_run(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, other = await rig.user("ada"), await rig.user("eve")
        workflow_id = await _workflow(user)
        request = {"workflowId": workflow_id, "requestId": "once", "input": {"b": 1, "a": 2}}
        answers = await asyncio.gather(*[user.call("RunService/StartRun", **request) for _ in range(8)])
        assert len({answer.run.id for answer in answers}) == 1
        for change in ({"input": {"b": 1}}, {"priority": 1}, {"labels": {"x": "y"}}):
            refused = await refusal(user.call("RunService/StartRun", **{**request, **change}))
            assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
        foreign = await _workflow(other)
        run = (await other.call("RunService/StartRun", workflowId=foreign, requestId="once")).run
        assert run.owner_id == other.id

    serve(tmp_path, scenario)


def test_runs_are_steered_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        run_id = (await user.call("RunService/StartRun", workflowId=await _workflow(user))).run.id
        for name, state in (("Pause", Run.PAUSED), ("Pause", Run.PAUSED), ("Resume", Run.RUNNING)):
            run = (await user.call(f"RunService/{name}Run", runId=run_id)).run
            assert run.state == state or name == "Resume"
        for _ in range(2):
            assert (await user.call("RunService/CancelRun", runId=run_id)).run.state == Run.CANCELLED
        refused = await refusal(user.call("RunService/PauseRun", runId=run_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_STATE")

    serve(tmp_path, scenario)


def _nested(depth: int) -> Any:
    return 1 if depth == 0 else [_nested(depth - 1)]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"input": {"items": [1, 2, 3, {"price": 2**53}]}}, ["input.items[3].price"]),
        ({"input": {"price": 1e300}}, ["input.price"]),
        ({"input": "a\0b"}, ["input"]),
        ({"input": {"a\0b": 1}}, ["input.a\\x00b"]),
        ({"input": _nested(33)}, ["input" + "[0]" * 32]),
        ({"input": "x" * (1 << 20)}, ["input"]),
        ({"priority": 101}, ["priority"]),
        ({"priority": -101}, ["priority"]),
        ({"requestId": "x" * 201}, ["requestId"]),
        ({"labels": {"": "x"}}, ["labels."]),
        ({"labels": {"k": "x" * 257}}, ["labels.k"]),
        ({"labels": {f"k{n}": "" for n in range(65)}}, ["labels"]),
        ({"priority": 101, "input": 2**60, "labels": {"k": "\0"}}, ["input", "priority", "labels.k"]),
    ],
)
def test_a_wrong_start_names_its_fields(tmp_path: Path, fields: dict[str, Any], wrong: list[str]) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id = await _workflow(user)
        refused = await refusal(user.call("RunService/StartRun", workflowId=workflow_id, **fields))
        assert (refused.code, refused.reason) == (INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert list(refused.violations) == wrong
        assert not (await user.call("RunService/ListRuns")).runs

    serve(tmp_path, scenario)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow_id = await _workflow(user)
        for number in (float("nan"), float("inf"), float("-inf")):
            request = StartRunRequest(workflow_id=workflow_id, input=Value(number_value=number))
            refused = await refusal(user.call("RunService/StartRun", request))
            assert list(refused.violations) == ["input"]

    serve(tmp_path, scenario)


def test_an_unknown_state_is_refused(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        assert list((await refusal(user.call("RunService/ListRuns", state=99))).violations) == ["state"]

    serve(tmp_path, scenario)


def test_outputs_beyond_the_limit_are_left_to_the_steps(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        dag = {"nodes": [{**UPPERCASE, "id": f"n{n}"} for n in range(5)]}
        run_id = (await user.call("RunService/StartRun", workflowId=await _workflow(user, dag))).run.id
        await agent.succeed_all(f'"{"x" * 1_000_000}"')
        run = (await user.call("RunService/GetRun", runId=run_id)).run
        assert (run.state, run.HasField("output")) == (Run.SUCCEEDED, False)
        page = await user.call("RunService/ListSteps", runId=run_id)
        assert [step.node_id for step in page.steps] == ["n0", "n1"]
        assert page.next_page_token

    serve(tmp_path, scenario)
