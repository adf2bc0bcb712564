"""Lists page by page."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_rig import DAG, INVALID_ARGUMENT, METHODS, Caller, Rig, refusal, serve

from towline_controlplane.errors import InvalidArgument
from towline_controlplane.services.pages import (
    PAGE_BYTES,
    Key,
    PageLimits,
    decode_token,
    encode_token,
    gather,
    page_size,
)

KEYS = st.tuples(st.integers(0, 2**60), st.text(max_size=40))
LISTS = [name for name, method in METHODS.items() if "page_token" in method.input_type.fields_by_name]


@given(KEYS, st.text(max_size=20))
def test_a_token_leads_back_to_its_key(key: Key, argument: str) -> None:
    token = encode_token(key, "List", argument)
    assert decode_token(token, (int, str), "List", argument) == key


@given(KEYS, st.text(max_size=5), st.text(max_size=5))
def test_a_token_is_of_its_query_only(key: Key, one: str, other: str) -> None:
    token = encode_token(key, "List", one)
    if one != other:
        with pytest.raises(InvalidArgument):
            decode_token(token, (int, str), "List", other)
    with pytest.raises(InvalidArgument):
        decode_token(token, (int,), "List", one)


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")))
def test_no_text_breaks_the_decoder(text: str) -> None:
    if text:
        with pytest.raises(InvalidArgument) as caught:
            decode_token(text, (int,), "List")
        assert caught.value.violations[0].field == "pageToken"


@pytest.mark.parametrize(("asked", "got"), [(0, 50), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)])
def test_page_sizes(asked: int, got: int) -> None:
    assert page_size(asked, PageLimits()) == got


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        page_size(-1, PageLimits())
    assert caught.value.violations[0].field == "pageSize"


@given(
    st.lists(st.sampled_from([1, PAGE_BYTES // 3, PAGE_BYTES, PAGE_BYTES * 2]), max_size=150),
    st.integers(1, 120),
)
def test_pages_hold_every_row_once_and_are_bounded(weights: list[int], size: int) -> None:
    rows = list(enumerate(weights))
    seen: list[tuple[int, int]] = []
    after: Key | None = None
    while True:
        page = gather(
            lambda key, limit: rows[(int(key[0]) + 1 if key else 0) :][:limit],
            lambda row: (row[0],),
            after,
            size,
            lambda row: row[1],
        )
        assert len(page.rows) <= size
        assert len(page.rows) == 1 or sum(weight for _, weight in page.rows) <= PAGE_BYTES
        seen += page.rows
        if page.next_key is None:
            break
        assert page.rows
        after = page.next_key
    assert seen == rows


async def _walk(caller: Caller, name: str, field: str, **fields: Any) -> list[Any]:
    """Returns the pages of a list, with pages of two."""
    pages: list[Any] = []
    token = ""
    while True:
        answer = await caller.call(name, pageSize=2, pageToken=token, **fields)
        pages.append(list(getattr(answer, field)))
        token = answer.next_page_token
        if not token:
            return pages


def test_lists_are_walked_whole_while_they_grow(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        created = [
            (await user.call("WorkflowService/CreateWorkflow", name=f"w{n}", dag=DAG)).workflow.id for n in range(5)
        ]
        runs = [(await user.call("RunService/StartRun", workflowId=created[0])).run.id for _ in range(5)]
        for _ in range(4):
            await user.call("WorkflowService/CreateWorkflowVersion", workflowId=created[0], dag=DAG)
        pages = await _walk(user, "WorkflowService/ListWorkflows", "workflows")
        assert [len(page) for page in pages] == [2, 2, 1]
        assert [each.id for page in pages for each in page] == created[::-1]
        pages = await _walk(user, "RunService/ListRuns", "runs", workflowId=created[0])
        assert [each.id for page in pages for each in page] == runs[::-1]
        versions = await _walk(user, "WorkflowService/ListWorkflowVersions", "versions", workflowId=created[0])
        assert [each.number for page in versions for each in page] == [5, 4, 3, 2, 1]
        steps = await _walk(user, "RunService/ListSteps", "steps", runId=runs[0])
        assert [each.node_id for page in steps for each in page] == ["a", "b"]
        plugins = await _walk(user, "PluginService/ListPlugins", "plugins")
        names = [each.name for page in plugins for each in page]
        assert names == sorted(names)
        assert "TEXT_TRANSFORM" in names

    serve(tmp_path, scenario)


def test_agents_are_listed_by_name(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        for name in ("c", "a", "b"):
            await rig.agent(name)
        pages = await _walk(admin, "AgentAdminService/ListAgents", "agents")
        assert [[(each.name, each.state) for each in page] for page in pages] == [[("a", 1), ("b", 1)], [("c", 1)]]

    serve(tmp_path, scenario)


@pytest.mark.parametrize("name", LISTS)
def test_every_list_refuses_wrong_sizes_and_foreign_tokens(tmp_path: Path, name: str) -> None:
    async def scenario(rig: Rig) -> None:
        admin = await rig.admin()
        workflow = (await admin.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        run = (await admin.call("RunService/StartRun", workflowId=workflow.id)).run
        ids = {"workflow_id": workflow.id, "run_id": run.id}
        known = {each: ids[each] for each in ids if each in METHODS[name].input_type.fields_by_name}
        foreign = encode_token((1, "x"), "AnotherList")
        for fields, wrong in (
            ({"pageSize": -1}, "pageSize"),
            ({"pageToken": "nonsense"}, "pageToken"),
            ({"pageToken": foreign}, "pageToken"),
            ({"pageToken": "x" * 10_000}, "pageToken"),
        ):
            refused = await refusal(admin.call(name, **known, **fields))
            assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, [wrong])

    serve(tmp_path, scenario)
