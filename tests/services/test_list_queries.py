"""What lists can be narrowed to and ordered by, from the request to the rows; what cannot be is named."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from service_rig import DAG, INVALID_ARGUMENT, Rig, refusal, serve

from towline.v1.run_service_pb2 import ListRunsRequest
from towline.v1.workflow_service_pb2 import ListWorkflowsRequest
from towline_controlplane.errors import InvalidArgument
from towline_controlplane.services.list_queries import RUN_ORDERS, WORKFLOW_ORDERS, key_shape, run_filter
from towline_controlplane.services.pages import encode_token, query_of

RUNS, WORKFLOWS = "RunService/ListRuns", "WorkflowService/ListWorkflows"


def test_every_order_of_the_contract_is_one_of_the_store() -> None:
    assert set(RUN_ORDERS) == set(ListRunsRequest.OrderBy.values())
    assert set(WORKFLOW_ORDERS) == set(ListWorkflowsRequest.OrderBy.values())
    assert {key_shape(order)[0] for order in WORKFLOW_ORDERS.values()} == {int, str}


def test_times_are_not_rounded_into_the_list() -> None:
    between = Timestamp(seconds=5, nanos=1_500)
    narrow = run_filter(ListRunsRequest(created_after=between, created_before=between), None)
    assert (narrow.created_after, narrow.created_before) == (5_000_001, 5_000_002)
    on = Timestamp(seconds=5, nanos=1_000)
    narrow = run_filter(ListRunsRequest(created_after=on, created_before=on), None)
    assert (narrow.created_after, narrow.created_before) == (5_000_001, 5_000_001)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ListRunsRequest(created_after=Timestamp(seconds=-1)), "createdAfter"),
        (ListRunsRequest(created_before=Timestamp(seconds=2**62)), "createdBefore"),
        (ListRunsRequest(created_before=Timestamp(nanos=-1)), "createdBefore"),
        (ListRunsRequest(labels=["a"]), "labels[0]"),
        (ListRunsRequest(labels=["a=b", "=b"]), "labels[1]"),
        (ListRunsRequest(labels=["a=b", "a=c"]), "labels"),
        (ListRunsRequest(labels=["a=\0"]), "labels[0]"),
        (ListRunsRequest(labels=["a=" + "b" * 500]), "labels[0]"),
        (ListRunsRequest(labels=[f"a{n}=b" for n in range(11)]), "labels"),
    ],
)
def test_a_wrong_filter_is_named(request_: ListRunsRequest, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        run_filter(request_, None)
    assert [each.field for each in caught.value.violations] == [field]


def test_lists_are_narrowed_and_ordered_over_the_wire(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user, other = await rig.user("ada"), await rig.user("bob")
        for name in ("b", "a", "ab"):
            await user.call("WorkflowService/CreateWorkflow", name=name, dag=DAG)
        await other.call("WorkflowService/CreateWorkflow", name="aa", dag=DAG)

        async def names(**fields: Any) -> list[str]:
            return [each.name for each in (await user.call(WORKFLOWS, **fields)).workflows]

        assert await names() == ["ab", "a", "b"]
        assert await names(orderBy="NAME_ASC") == ["a", "ab", "b"]
        assert await names(orderBy="NAME_DESC", namePrefix="a") == ["ab", "a"]
        workflow_id = (await user.call(WORKFLOWS, namePrefix="b")).workflows[0].id
        await user.call("WorkflowService/UpdateWorkflow", workflowId=workflow_id, description="new")
        assert await names(orderBy="UPDATE_TIME_DESC", pageSize=1) == ["b"]

        started = [
            (await user.call("RunService/StartRun", workflowId=workflow_id, labels={"n": str(n)})).run for n in range(3)
        ]
        await user.call("RunService/CancelRun", runId=started[1].id)

        async def runs(**fields: Any) -> list[int]:
            found = (await user.call(RUNS, **fields)).runs
            return [[each.id for each in started].index(run.id) for run in found]

        assert await runs(states=["CANCELLED"]) == [1]
        assert await runs(states=["PENDING", "RUNNING"], state="CANCELLED", orderBy="CREATE_TIME_ASC") == [0, 1, 2]
        assert await runs(orderBy="END_TIME_DESC") == [1]
        assert await runs(labels=["n=2"]) == [2]
        assert await runs(createdAfter=started[0].create_time.ToJsonString(), orderBy="CREATE_TIME_ASC") == [1, 2]
        assert (await other.call(RUNS, orderBy="END_TIME_ASC")).runs == []

    serve(tmp_path, scenario)


def test_a_token_goes_with_its_filter_and_order_only(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        for name in ("a", "b"):
            await user.call("WorkflowService/CreateWorkflow", name=name, dag=DAG)
        token = (await user.call(WORKFLOWS, pageSize=1, orderBy="NAME_ASC")).next_page_token
        later = await user.call(WORKFLOWS, pageSize=2, orderBy="NAME_ASC", pageToken=token)
        assert [each.name for each in later.workflows] == ["b"]
        for fields in ({}, {"orderBy": "NAME_DESC"}, {"orderBy": "NAME_ASC", "namePrefix": "b"}):
            refused = await refusal(user.call(WORKFLOWS, pageToken=token, **fields))
            assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, ["pageToken"])
        forged = encode_token((1, "x"), *query_of(ListWorkflowsRequest(order_by=ListWorkflowsRequest.NAME_ASC)))
        refused = await refusal(user.call(WORKFLOWS, orderBy="NAME_ASC", pageToken=forged))
        assert list(refused.violations) == ["pageToken"]
        refused = await refusal(user.call(WORKFLOWS, orderBy=99))
        assert list(refused.violations) == ["orderBy"]
        refused = await refusal(user.call(RUNS, states=["RUNNING", 99]))
        assert list(refused.violations) == ["states"]
        refused = await refusal(user.call(WORKFLOWS, namePrefix="x" * 201))
        assert list(refused.violations) == ["namePrefix"]

    serve(tmp_path, scenario)
