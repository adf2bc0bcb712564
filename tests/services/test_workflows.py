"""Workflows, versions, pins, and every way to write a DAG wrongly."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from service_rig import DAG, INVALID_ARGUMENT, NOT_FOUND, UPPERCASE, Refused, Rig, refusal, serve

from towline_controlplane.store import workflows
from towline_dag.choices import SideEffects
from towline_dag.schemas import wrong_config


def test_a_workflow_lives(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = (await user.call("WorkflowService/CreateWorkflow", name="w", description="d", dag=DAG)).workflow
        assert (made.name, made.description, made.owner_id, made.current_version) == ("w", "d", user.id, 1)
        assert [node.id for node in made.dag.nodes] == ["a", "b"]
        assert (await user.call("WorkflowService/GetWorkflow", workflowId=made.id)).workflow == made
        one_node = {"nodes": [{**UPPERCASE, "id": "only"}]}
        changed = await user.call("WorkflowService/UpdateWorkflow", workflowId=made.id, name="x", dag=one_node)
        assert (changed.workflow.name, changed.workflow.description) == ("x", "d")
        assert changed.workflow.current_version == 2
        assert [node.id for node in changed.workflow.dag.nodes] == ["only"]
        cleared = await user.call("WorkflowService/UpdateWorkflow", workflowId=made.id, description="")
        assert (cleared.workflow.name, cleared.workflow.description) == ("x", "")
        assert cleared.workflow.current_version == 2
        versions = (await user.call("WorkflowService/ListWorkflowVersions", workflowId=made.id)).versions
        pinned = await user.call("WorkflowService/PinWorkflowVersion", workflowId=made.id, versionId=versions[1].id)
        assert pinned.workflow.pinned_version_id == versions[1].id
        assert pinned.workflow.dag == made.dag
        await user.call("WorkflowService/DeleteWorkflow", workflowId=made.id)
        for name in ("GetWorkflow", "DeleteWorkflow", "ListWorkflowVersions"):
            assert (await refusal(user.call(f"WorkflowService/{name}", workflowId=made.id))).code == NOT_FOUND
        assert not (await user.call("WorkflowService/ListWorkflows")).workflows

    serve(tmp_path, scenario)


def test_a_change_is_made_only_to_what_was_seen(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        seen = [(await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow.etag]
        workflow_id = (await user.call("WorkflowService/ListWorkflows")).workflows[0].id

        async def change(method: str, **fields: Any) -> None:
            for stale in (*seen[:-1], f"{seen[-1]}x", "x"):
                refused = await refusal(
                    user.call(f"WorkflowService/{method}", workflowId=workflow_id, etag=stale, **fields)
                )
                assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
            await user.call(f"WorkflowService/{method}", workflowId=workflow_id, etag=seen[-1], **fields)

        async def read() -> None:
            seen.append((await user.call("WorkflowService/GetWorkflow", workflowId=workflow_id)).workflow.etag)
            assert (await user.call("WorkflowService/ListWorkflows")).workflows[0].etag == seen[-1]

        await read()
        assert seen[0] == seen.pop()
        await change("UpdateWorkflow", name="x")
        await read()
        await change("UpdateWorkflow", name="w")  # as at first, and yet another state
        await read()
        await change("CreateWorkflowVersion", dag=DAG)
        await read()
        versions = (await user.call("WorkflowService/ListWorkflowVersions", workflowId=workflow_id)).versions
        await change("PinWorkflowVersion", versionId=versions[1].id)
        await read()
        assert len(set(seen)) == 5
        await change("DeleteWorkflow")

    serve(tmp_path, scenario)


def test_of_racing_changes_of_one_state_one_is_made(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow

        changes = (
            user.call("WorkflowService/UpdateWorkflow", workflowId=made.id, name=f"w{number}", etag=made.etag)
            for number in range(8)
        )
        answers = await asyncio.gather(*changes, return_exceptions=True)
        reasons = [each.reason for each in answers if isinstance(each, Refused)]
        assert reasons == ["ETAG_MISMATCH"] * 7

    serve(tmp_path, scenario)


def test_the_plugin_of_each_node_is_recorded(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        made = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=DAG)).workflow
        row = await rig.database.read(lambda tx: workflows.get_workflow(tx, made.id, None))
        assert row is not None
        version = await rig.database.read(lambda tx: workflows.get_version(tx, row.current_version_id))
        assert version is not None
        assert {ref.name for ref in version.plugins.values()} == {"TEXT_TRANSFORM"}
        assert version.plugins["a"].digest == ""
        assert version.plugins["a"].side_effects in SideEffects

    serve(tmp_path, scenario)


def _node(**changes: Any) -> dict[str, Any]:
    return {"nodes": [{**UPPERCASE, **changes}]}


def _edge(**changes: Any) -> dict[str, Any]:
    return {**DAG, "edges": [{"from": "a", "to": "b", **changes}]}


@pytest.mark.parametrize(
    ("dag", "places"),
    [
        ({}, ["dag.nodes"]),
        ({"nodes": []}, ["dag.nodes"]),
        (_node(id=""), ["dag.nodes[0].id"]),
        (_node(id="1st"), ["dag.nodes[0].id"]),
        (_node(id="a" * 129), ["dag.nodes[0].id"]),
        ({"nodes": [UPPERCASE, UPPERCASE]}, ["dag.nodes[1].id"]),
        (_node(type="NO_SUCH_PLUGIN"), ["dag.nodes[0].type"]),
        (_node(type="mine", pluginId="unknown"), ["dag.nodes[0].pluginId"]),
        (_node(type="DELAY", config={}), ["dag.nodes[0].config.seconds"]),
        (_node(config={"transform": "rot13"}), ["dag.nodes[0].config.transform"]),
        (_node(config={"transform": "trim", "txt": "x"}), ["dag.nodes[0].config.txt"]),
        (_node(config={"transform": "${{ input. }}"}), ["dag.nodes[0].config.transform"]),
        (_node(config={"transform": "trim", "text": "a\0b"}), ["dag.nodes[0].config.text"]),
        (_node(join=99), ["dag.nodes[0].join"]),
        (_node(sideEffects=99), ["dag.nodes[0].sideEffects"]),
        (_node(timeoutMs=-1), ["dag.nodes[0].timeoutMs"]),
        (_node(retryConfig={"maxAttempts": 101}), ["dag.nodes[0].retryConfig.maxAttempts"]),
        (_node(retryConfig={"backoffMultiplier": "NaN"}), ["dag.nodes[0].retryConfig.backoffMultiplier"]),
        (_edge(to="c"), ["dag.edges[0].to"]),
        (_edge(condition={"type": 99}), ["dag.edges[0].condition.type"]),
        (_edge(condition={"type": "EXPRESSION", "expression": "1 +"}), ["dag.edges[0].condition.expression"]),
        ({**_node(type="NOPE"), "edges": [{"from": "a", "to": "a"}]}, ["dag.edges[0].to", "dag.nodes[0].type"]),
    ],
)
def test_a_wrong_dag_is_refused_by_its_place(tmp_path: Path, dag: dict[str, Any], places: list[str]) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        refused = await refusal(user.call("WorkflowService/CreateWorkflow", name="w", dag=dag))
        assert (refused.code, refused.reason) == (INVALID_ARGUMENT, "INVALID_DAG")
        assert sorted(refused.violations) == places
        assert not (await user.call("WorkflowService/ListWorkflows")).workflows

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, ["name"]),
        ({"name": "  "}, ["name"]),
        ({"name": "x" * 201}, ["name"]),
        ({"name": "a\0b"}, ["name"]),
        ({"description": "x" * 4_001}, ["description"]),
        ({"name": "", "description": "x" * 4_001}, ["name", "description"]),
        ({"dag": None}, ["dag"]),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, fields: dict[str, Any], wrong: list[str]) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        good = {"name": "w", "dag": DAG}
        refused = await refusal(user.call("WorkflowService/CreateWorkflow", **(good | fields)))
        assert (refused.code, list(refused.violations)) == (INVALID_ARGUMENT, wrong)
        assert refused.info.domain == "towline.dev"
        assert len(refused.status.details) == 2

    serve(tmp_path, scenario)


def test_a_dag_of_too_many_nodes_is_refused_before_it_is_compiled(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        user = await rig.user("ada")
        nodes = [{"id": f"n{n}", "type": "NOPE"} for n in range(10_001)]
        refused = await refusal(user.call("WorkflowService/CreateWorkflow", name="w", dag={"nodes": nodes}))
        assert list(refused.violations) == ["dag.nodes"]

    serve(tmp_path, scenario)


SCHEMA = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}},
        "name": {"type": "string", "pattern": "^(a+)+$"},
    },
    "required": ["count"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("config", "places"),
    [
        ({"count": 1, "tags": ["abc"]}, []),
        ({"count": 0}, ["config.count"]),
        ({"count": "${{ input.n }}"}, []),
        ({"count": 1, "tags": ["abcd", "${{ input.long }}"]}, ["config.tags[0]"]),
        ({"count": 1, "tags": "${{ input.tags }}"}, []),
        ({"tags": ["${{ input.t }}"]}, ["config.count"]),
        ({"count": 1, "other": "${{ input.t }}"}, ["config.other"]),
        ({"count": 1, "name": "a" * 60}, []),
        ({"count": 1, "name": "a" * 60 + "!"}, ["config.name"]),
    ],
)
def test_configs_are_judged_where_they_hold_no_template(config: dict[str, Any], places: list[str]) -> None:
    assert [each.field for each in wrong_config(SCHEMA, config, "config")] == places


def test_schemas_that_would_never_end_are_not_followed() -> None:
    bomb = {"$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(60)}, "$ref": "#/$defs/0"}
    assert wrong_config(bomb, {}, "config") == []
    assert wrong_config({"$ref": "http://attacker.example/schema"}, {}, "config") == []
    assert wrong_config({"pattern": "(?=a)"}, "b", "config") == []  # pyright: ignore[reportArgumentType]
