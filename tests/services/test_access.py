"""Who may call what, walked from the contract: every method that is added is walked too."""

import asyncio
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from credentials import spoiled_credentials
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from service_rig import (
    DAG,
    INVALID_ARGUMENT,
    METHODS,
    NOT_FOUND,
    PERMISSION_DENIED,
    SERVICES,
    UNAUTHENTICATED,
    Caller,
    Rig,
    refusal,
    serve,
)

from towline.v1 import access_pb2
from towline_controlplane.services.access import AccessOptionMissing, check_access_options
from towline_controlplane.store import tables

UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


def _access(method: MethodDescriptor) -> int:
    return method.GetOptions().Extensions[access_pb2.access]  # type: ignore[index]


OF_PEOPLE = [name for name, method in METHODS.items() if _access(method) in (access_pb2.USER, access_pb2.ADMIN)]
OF_ADMINS = [name for name, method in METHODS.items() if _access(method) == access_pb2.ADMIN]
OF_AGENTS = [name for name, method in METHODS.items() if _access(method) == access_pb2.AGENT]
ID_FIELDS = ("workflow_id", "run_id", "schedule_id", "version_id", "node_id")
EXTRA: dict[str, dict[str, Any]] = {
    "WorkflowService/CreateWorkflowVersion": {"dag": DAG},
    "ScheduleService/CreateSchedule": {"name": "s", "cron": "@daily"},
    "ScheduleService/BackfillSchedule": {"startTime": "2024-01-01T00:00:00Z", "endTime": "2024-01-01T00:00:00Z"},
}
WITH_ID = [
    name
    for name, method in METHODS.items()
    if name in OF_PEOPLE
    and any(field in method.input_type.fields_by_name for field in ("workflow_id", "run_id", "schedule_id"))
    and name != "RunService/ListRuns"
]


def test_the_contract_is_walked_whole() -> None:
    assert len(OF_PEOPLE) >= 20
    assert len(OF_AGENTS) >= 5
    assert len(WITH_ID) >= 22
    public = {name for name in METHODS if name not in OF_PEOPLE and name not in OF_AGENTS}
    assert public == {"AuthService/Register", "AuthService/Login", "AuthService/RefreshToken", "AgentService/Enroll"}


@pytest.mark.parametrize(
    "header",
    [
        (),
        (("authorization", "Bearer nothing"),),
        (("authorization", "nothing"),),
        (("authorization", "Bearer "),),
        (("authorization", "Basic dTpw"),),
    ],
)
def test_no_method_with_a_caller_is_open(tmp_path: Path, header: tuple[tuple[str, str], ...]) -> None:
    async def scenario(rig: Rig) -> None:
        for name in (*OF_PEOPLE, *OF_AGENTS):
            assert await _code(rig.channel, name, header) == UNAUTHENTICATED, name

    serve(tmp_path, scenario)


def test_what_counts_no_more_or_elsewhere_opens_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        for what, text in (await spoiled_credentials(rig)).items():
            for name in (*OF_PEOPLE, *OF_AGENTS):
                code = await _code(rig.channel, name, (("authorization", f"Bearer {text}"),))
                assert code == UNAUTHENTICATED, (what, name)

    serve(tmp_path, scenario)


def test_credentials_of_people_and_agents_are_not_exchangeable(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, admin, agent = await rig.user("ada"), await rig.admin(), await rig.agent()
        for name in OF_PEOPLE:
            assert await _code(rig.channel, name, _bearer(agent.caller)) == UNAUTHENTICATED, name
        for name in OF_AGENTS:
            assert await _code(rig.channel, name, _bearer(user)) == UNAUTHENTICATED, name
            assert await _code(rig.channel, name, _bearer(admin)) == UNAUTHENTICATED, name
            refused = (UNAUTHENTICATED, PERMISSION_DENIED)
            assert await _code(rig.channel, name, _bearer(agent.caller)) not in refused, name

    serve(tmp_path, scenario)


def test_two_credentials_in_one_call_are_refused(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        twice = (*_bearer(user), *_bearer(user))
        assert await _code(rig.channel, "AuthService/GetMe", twice) == UNAUTHENTICATED

    serve(tmp_path, scenario)


def test_only_admins_call_methods_of_admins(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, admin = await rig.user("ada"), await rig.admin()
        for name in OF_ADMINS:
            assert await _code(rig.channel, name, _bearer(user)) == PERMISSION_DENIED, name
            assert await _code(rig.channel, name, _bearer(admin)) in (
                grpc.StatusCode.OK,
                NOT_FOUND,
                INVALID_ARGUMENT,
            ), name

    serve(tmp_path, scenario)


def test_every_method_of_people_is_there(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        for name in sorted(OF_PEOPLE, key="AuthService/Logout".__eq__):
            code = await _code(rig.channel, name, _bearer(admin))
            assert code not in (UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), name

    serve(tmp_path, scenario)


@pytest.mark.parametrize("name", WITH_ID)
def test_what_is_anothers_is_answered_like_what_is_not(tmp_path: Path, name: str) -> None:
    """With the ids of another user and with unknown ones the answers differ in nothing but the id itself."""

    async def scenario(rig: Rig) -> None:
        owner, other, admin = await rig.user("ada"), await rig.user("eve"), await rig.admin()
        workflow = (await owner.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        run = (await owner.call("RunService/StartRun", workflowId=workflow.id)).run
        if name in ("RunService/RetryRun", "RunService/DeleteRun"):
            await owner.call("RunService/CancelRun", runId=run.id)
        own = {"workflowId": workflow.id, "name": "s", "cron": "@daily"}
        schedule = (await owner.call("ScheduleService/CreateSchedule", **own)).schedule
        ids = {"workflow_id": workflow.id, "run_id": run.id, "version_id": run.version_id, "node_id": "a"}
        ids["schedule_id"] = schedule.id
        known = {each: ids[each] for each in ID_FIELDS if each in METHODS[name].input_type.fields_by_name}
        unknown = {each: "x" * len(value) for each, value in known.items()}
        extra = EXTRA.get(name, {})
        before = await _rows(rig)
        foreign = await refusal(other.call(name, **known, **extra))
        missing = await refusal(other.call(name, **unknown, **extra))
        assert foreign.code == NOT_FOUND
        first_id = next(iter(known))
        assert foreign.message.replace(known[first_id], "?") == missing.message.replace(unknown[first_id], "?")
        assert (foreign.reason, foreign.violations) == (missing.reason, missing.violations)
        assert await _rows(rig) == before
        if name not in ("RunService/WatchRun", "RunService/ResumeRun", "RunService/DownloadArtifact"):
            await admin.call(name, **known, **extra)

    serve(tmp_path, scenario)


def test_lists_hold_only_ones_own(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        owner, other, admin = await rig.user("ada"), await rig.user("eve"), await rig.admin()
        workflow = (await owner.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        await owner.call("RunService/StartRun", workflowId=workflow.id)
        await owner.call("ScheduleService/CreateSchedule", workflowId=workflow.id, name="s", cron="@daily")
        for caller, count in ((owner, 1), (other, 0), (admin, 1)):
            assert len((await caller.call("WorkflowService/ListWorkflows")).workflows) == count
            assert len((await caller.call("RunService/ListRuns")).runs) == count
            assert len((await caller.call("ScheduleService/ListSchedules")).schedules) == count
            assert len((await caller.call("RunService/ListRuns", workflowId=workflow.id)).runs) == count

    serve(tmp_path, scenario)


def test_a_version_of_another_workflow_is_neither_pinned_nor_run(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        owner, other = await rig.user("ada"), await rig.user("eve")
        foreign = (await other.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        versions = (await other.call("WorkflowService/ListWorkflowVersions", workflowId=foreign.id)).versions
        own = (await owner.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        for name in ("WorkflowService/PinWorkflowVersion", "RunService/StartRun"):
            refused = await refusal(owner.call(name, workflowId=own.id, versionId=versions[0].id))
            assert refused.code == NOT_FOUND, name

    serve(tmp_path, scenario)


def test_a_method_without_the_option_keeps_the_server_from_being_built() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="careless.proto", package="careless", syntax="proto3")
    file.message_type.add(name="Nothing")
    file.service.add(name="Careless").method.add(
        name="Open", input_type=".careless.Nothing", output_type=".careless.Nothing"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    with pytest.raises(AccessOptionMissing, match=r"careless\.Careless\.Open"):
        check_access_options([pool.FindServiceByName("careless.Careless")])
    assert len(check_access_options(SERVICES)) == len(METHODS)


def test_health_and_reflection_are_open(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        health: Any = health_pb2_grpc.HealthStub(rig.channel)
        for name in ("", "towline.v1.RunService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", rig.channel))
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [each async for each in reflection.ServerReflectionInfo(iter([request]))]
        listed = {service.name for service in answers[0].list_services_response.service}
        assert {service.full_name for service in SERVICES} < listed

    serve(tmp_path, scenario)


def test_a_method_that_does_not_exist_is_unimplemented(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        call = cast("Any", rig.channel).unary_unary("/towline.v1.RunService/DropTables")
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() == UNIMPLEMENTED

    serve(tmp_path, scenario)


async def _code(channel: aio.Channel, name: str, header: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    call = Caller(channel).open(name, metadata=header)
    try:
        async with asyncio.timeout(30):
            if METHODS[name].server_streaming:
                async for _ in call:
                    break
            else:
                await call
    except aio.AioRpcError as error:
        return error.code()
    return await call.code()


def _bearer(caller: Caller) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {caller.credential}"),)


async def _rows(rig: Rig) -> list[object]:
    watched = (tables.workflows, tables.workflow_versions, tables.runs, tables.schedules)
    return await rig.database.read(lambda tx: [tx.connection.execute(table.select()).all() for table in watched])
