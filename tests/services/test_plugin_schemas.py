"""What runs is held against the schemas of its plugin: rendered configs before the offer, outputs as reported."""

import json
from pathlib import Path
from typing import Any

import pytest
from service_rig import Caller, Rig, RigAgent, serve
from test_plugins import FILES, bundle, manifest, push

from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.engine.commands import EndAttempt, Outcome
from towline_controlplane.frozen import replace
from towline_controlplane.handouts import StepOffer
from towline_controlplane.outputs import Outputs
from towline_controlplane.services.agent_messages import AgentLimits
from towline_controlplane.services.offers import OfferMessages
from towline_controlplane.services.plugin_schemas import PluginSchemas
from towline_controlplane.services.secret_handout import SecretHandout
from towline_controlplane.submissions import Report

OUTPUT = """
[output_schema]
type = "object"
required = ["greeting"]
additionalProperties = false
[output_schema.properties.greeting]
type = "string"
maxLength = 5
"""
HELLO = bundle({**FILES, "plugin.toml": manifest() + OUTPUT})


async def offered(rig: Rig, config: dict[str, Any], kind: str = "hello") -> tuple[Caller, RigAgent, StepOffer]:
    """Starts a run of one node and takes its step."""
    user = await rig.user("ada")
    await push(user, HELLO)
    dag = {"nodes": [{"id": "a", "type": kind, "config": config}]}
    made = (await user.call("WorkflowService/CreateWorkflow", name="w", dag=dag)).workflow
    await user.call("RunService/StartRun", workflowId=made.id, input={"name": "you", "number": 7})
    agent = await rig.agent()
    [offer] = await agent.pull()
    return user, agent, offer


def report_of(agent: RigAgent, offer: StepOffer, output: object) -> Report:
    end = EndAttempt("a", Outcome.SUCCEEDED, digest="d", output=json.dumps(output))
    return Report(agent.lease(offer), end)


async def step_of(user: Caller, offer: StepOffer) -> Any:
    return (await user.call("RunService/GetStep", runId=offer.run.id, nodeId="a")).step


def messages(rig: Rig, schemas: PluginSchemas) -> OfferMessages:
    outputs = Outputs(rig.database, FolderBlobs(rig.folder / "blobs"))
    return OfferMessages(rig.orchestrator, outputs, AgentLimits(5.0), schemas, SecretHandout(rig.database, None))


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"greeting": "hello!"}, "output.greeting"),
        ({"greeting": 1}, 'output.greeting must be of type "string"'),
        ({}, "output.greeting is required"),
        ({"greeting": "hi", "more": 1}, "output.more is not a field"),
        (None, 'output must be of type "object"'),
        ({"greeting": "x" * 100_000}, "output.greeting"),
    ],
)
@pytest.mark.parametrize("offered_here", [True, False], ids=["offered-here", "offered-elsewhere"])
def test_an_output_that_does_not_fit_fails_the_step(
    tmp_path: Path, output: object, said: str, offered_here: bool
) -> None:
    async def scenario(rig: Rig) -> None:
        user, agent, offer = await offered(rig, {"who": "you"})
        schemas = PluginSchemas(rig.database)
        if offered_here:
            assert await messages(rig, schemas).write([offer])
        reports = await schemas.judged([report_of(agent, offer, output)])
        await rig.orchestrator.exchange((), reports, None)
        step = await step_of(user, offer)
        assert (step.State.Name(step.state), step.error.code) == ("FAILED", "INVALID_OUTPUT")
        assert said in step.error.cause

    serve(tmp_path, scenario)


def test_an_output_that_fits_is_recorded_as_it_is(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        _, agent, offer = await offered(rig, {"who": "you"})
        report = report_of(agent, offer, {"greeting": "hello"})
        assert await PluginSchemas(rig.database).judged([report]) == [report]

    serve(tmp_path, scenario)


def test_a_builtin_is_judged_too_and_a_failure_is_not(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        _, agent, offer = await offered(rig, {"seconds": 0}, "DELAY")
        good, bad = report_of(agent, offer, {"seconds": 0}), report_of(agent, offer, {"minutes": 0})
        failed = Report(good.lease, EndAttempt("a", Outcome.FAILED, digest="d"))
        stale = Report(
            replace(good.lease, node_id="none"), EndAttempt("no-such-node", Outcome.SUCCEEDED, digest="d", output="1")
        )
        judged = await PluginSchemas(rig.database).judged([good, failed, bad, stale])
        assert [each.end.outcome for each in judged] == [
            Outcome.SUCCEEDED,
            Outcome.FAILED,
            Outcome.FAILED,
            Outcome.SUCCEEDED,
        ]
        assert (judged[0], judged[1]) == (good, failed)

    serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"who": "${{ input.number }}"}, 'config.who must be of type "string"'),
        ({"who": "${{ input.name }}"}, None),
        ({"who": "you"}, None),
    ],
)
def test_a_rendered_config_that_does_not_fit_is_never_offered(
    tmp_path: Path, config: dict[str, Any], said: str | None
) -> None:
    async def scenario(rig: Rig) -> None:
        user, _, offer = await offered(rig, config)
        sent = await messages(rig, PluginSchemas(rig.database)).write([offer])
        step = await step_of(user, offer)
        if said is None:
            assert len(sent) == 1
        else:
            assert sent == []
            assert (step.State.Name(step.state), step.error.code) == ("FAILED", "INVALID_CONFIG")
            assert said in step.error.cause

    serve(tmp_path, scenario)
