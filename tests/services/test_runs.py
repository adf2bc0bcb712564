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


def test_a_large_output_is_read_whole_and_left_out_of_lists(tmp_path: Path) -> None:
    text = "x" * 300_000

    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = (await user.call("RunService/StartRun", workflowId=await _workflow(user, FAN))).run.id
        await agent.succeed_all(f'{{"text":"{text}"}}')
        step = (await user.call("RunService/GetStep", runId=run_id, nodeId="b")).step
        assert step.output.struct_value["text"] == text
        assert step.output_digest == hashlib.sha256(f'{{"text":"{text}"}}'.encode()).hexdigest()
        run = (await user.call("RunService/GetRun", runId=run_id)).run
        assert {key: value["text"] for key, value in run.output.struct_value.items()} == {"b": text, "c": text}
        listed = (await user.call("RunService/ListSteps", runId=run_id)).steps
        assert {each.output_digest for each in listed} == {step.output_digest}
        assert not any(each.HasField("output") for each in listed)

    serve(tmp_path, scenario)


def test_an_output_that_is_gone_hides_neither_its_run_nor_the_fact(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = (await user.call("RunService/StartRun", workflowId=await _workflow(user, FAN))).run.id
        await agent.succeed_all(f'"{"x" * 300_000}"')
        for path in (rig.folder / "blobs").rglob("*"):
            if path.is_file():
                path.unlink()
        run = (await user.call("RunService/GetRun", runId=run_id)).run
        assert (run.state, run.HasField("output")) == (Run.SUCCEEDED, False)
        refused = await refusal(user.call("RunService/GetStep", runId=run_id, nodeId="b"))
        assert (refused.code, "cannot be read" in refused.message) == (grpc.StatusCode.UNAVAILABLE, True)

    serve(tmp_path, scenario)


def test_a_deleted_run_is_gone_for_its_readers_too(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, stranger, agent = await rig.user("ada"), await rig.user("bob"), await rig.agent()
        started = {"workflowId": await _workflow(user, FAN), "requestId": "key"}
        run_id = (await user.call("RunService/StartRun", **started)).run.id
        refused = await refusal(user.call("RunService/DeleteRun", runId=run_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_STATE")
        await agent.succeed_all()
        cursor = (await user.call("RunService/WatchRun", runId=run_id))[0].cursor
        assert (await refusal(stranger.call("RunService/DeleteRun", runId=run_id))).code == NOT_FOUND
        await user.call("RunService/DeleteRun", runId=run_id)
        for method, fields in (
            ("GetRun", {}),
            ("ListSteps", {}),
            ("GetStep", {"nodeId": "a"}),
            ("WatchRun", {"cursor": cursor}),
            ("TailLogs", {"follow": True}),
            ("DeleteRun", {}),
        ):
            assert (await refusal(user.call(f"RunService/{method}", runId=run_id, **fields))).code == NOT_FOUND
        assert not (await user.call("RunService/ListRuns")).runs
        assert (await refusal(user.call("RunService/StartRun", **started))).reason == "RUN_DELETED"

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

    serve(tmp_path, scenario)


def test_a_page_of_steps_ends_where_their_outputs_are_large(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        dag = {"nodes": [{**UPPERCASE, "id": f"n{n}"} for n in range(12)]}
        run_id = (await user.call("RunService/StartRun", workflowId=await _workflow(user, dag))).run.id
        await agent.succeed_all(f'"{"x" * 250_000}"')
        page = await user.call("RunService/ListSteps", runId=run_id)
        assert [step.node_id for step in page.steps] == [f"n{n}" for n in range(8)]
        assert page.next_page_token

    serve(tmp_path, scenario)


POLICIED = {
    "dag": {"nodes": [UPPERCASE]},
    "inputSchema": {
        "type": "object",
        "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}, "n": {"type": "integer"}},
        "required": ["name"],
        "additionalProperties": False,
    },
    "output": {"said": "${{ nodes.a.output.text }}"},
    "timeoutMs": 60_000,
    "concurrency": {"key": "input.name", "limit": 1},
}


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ({"name": "ada"}, []),
        ({"name": "Ada"}, ["input.name"]),
        ({"n": 1}, ["input.name"]),
        ({"name": "ada", "n": 1.5, "other": 1}, ["input.n", "input.other"]),
        ("ada", ["input"]),
        (None, ["input"]),
    ],
)
def test_the_input_of_a_run_must_fit_its_schema(tmp_path: Path, value: object, places: list[str]) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        workflow = (await user.call("WorkflowService/CreateWorkflow", name="w", **POLICIED)).workflow
        call = user.call("RunService/StartRun", workflowId=workflow.id, input=value)
        if places:
            assert sorted((await refusal(call)).violations) == places
        else:
            assert (await call).run.state == Run.PENDING

    serve(tmp_path, scenario)


def test_the_policies_of_a_workflow_come_back_and_are_those_of_its_version(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = (await user.call("WorkflowService/CreateWorkflow", name="w", **POLICIED)).workflow
        assert made.concurrency.limit == 1
        assert made.output.struct_value["said"] == "${{ nodes.a.output.text }}"
        more = await user.call("WorkflowService/UpdateWorkflow", workflowId=made.id, timeoutMs=5, concurrency={})
        assert (more.workflow.current_version, more.workflow.timeout_ms) == (2, 5)
        assert not more.workflow.HasField("concurrency")
        assert more.workflow.input_schema == made.input_schema
        assert more.workflow.dag == made.dag
        nothing: dict[str, Any] = {"inputSchema": {}, "output": None, "timeoutMs": 0}
        bare = (await user.call("WorkflowService/UpdateWorkflow", workflowId=made.id, **nothing)).workflow
        assert not any(bare.HasField(name) for name in ("input_schema", "output", "timeout_ms", "concurrency"))
        first = (await user.call("WorkflowService/ListWorkflowVersions", workflowId=made.id)).versions[-1]
        assert (first.timeout_ms, first.concurrency.key) == (60_000, "input.name")

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("policies", "places"),
    [
        ({"inputSchema": {"type": "nope"}}, ["inputSchema.type"]),
        ({"inputSchema": {"$ref": "#/x"}}, ["inputSchema.$ref"]),
        ({"inputSchema": {"items": {"uniqueItems": True}}}, ["inputSchema.items.uniqueItems"]),
        ({"inputSchema": {"anyOf": [{}, {"pattern": "(?=a)"}]}}, ["inputSchema.anyOf[1].pattern"]),
        ({"inputSchema": {"description": "x" * (64 << 10)}}, ["inputSchema"]),
        ({"output": "${{ nodes.nope.output }}"}, ["output"]),
        ({"concurrency": {"key": "input.x"}}, ["concurrency.limit"]),
        ({"timeoutMs": -1}, ["timeoutMs"]),
    ],
)
def test_wrong_policies_are_refused_at_their_place(tmp_path: Path, policies: Any, places: list[str]) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        for call in (
            user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG, **policies),
            user.call("WorkflowService/CreateWorkflowVersion", workflowId=made.id, dag=DAG, **policies),
            user.call("WorkflowService/UpdateWorkflow", workflowId=made.id, **policies),
        ):
            assert list((await refusal(call)).violations) == places

    serve(tmp_path, scenario)


def test_a_run_with_a_mapped_output_has_only_that(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        policies = {"dag": {"nodes": [UPPERCASE]}, "output": {"said": "${{ nodes.a.output.text }}"}}
        made = (await user.call("WorkflowService/CreateWorkflow", name="w", **policies)).workflow
        run_id = (await user.call("RunService/StartRun", workflowId=made.id)).run.id
        await agent.succeed_all('{"text":"HELLO"}')
        run = (await user.call("RunService/GetRun", runId=run_id)).run
        assert dict(run.output.struct_value) == {"said": "HELLO"}

    serve(tmp_path, scenario)


def test_a_run_that_failed_is_retried_and_its_history_goes_on(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent = await rig.user("ada"), await rig.agent()
        run_id = (await user.call("RunService/StartRun", workflowId=await _workflow(user))).run.id
        assert (await refusal(user.call("RunService/RetryRun", runId=run_id))).reason == "INVALID_STATE"
        await user.call("RunService/CancelRun", runId=run_id)
        seen = await user.call("RunService/WatchRun", runId=run_id)
        retried = (await user.call("RunService/RetryRun", runId=run_id)).run
        assert (retried.state, retried.retries, retried.cancel_requested) == (Run.PENDING, 1, False)
        await agent.succeed_all()
        more = await user.call("RunService/WatchRun", runId=run_id, cursor=seen[-1].cursor)
        assert more[0].event.sequence == seen[-1].event.sequence + 1
        assert (await user.call("RunService/GetRun", runId=run_id)).run.state == Run.SUCCEEDED

    serve(tmp_path, scenario)
