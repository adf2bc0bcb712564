"""What a client may rely on, played on the real control plane and on the fake one: `play(visitor, address)`."""

import asyncio
import io
from contextlib import redirect_stdout
from typing import Any

import pytest

from towline.v1.run_pb2 import Event, Run, Step
from towline_plugins import python, text_transform
from towline_sdk.client import Client
from towline_sdk.documents import parse_workflow, plain_value
from towline_sdk.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    TowlineError,
    UnauthenticatedError,
)
from towline_sdk.pages import Page
from towline_sdk.run_calls import RunOptions
from towline_sdk.workflow import ON_FAILURE, Edge, Node, Workflow, cel, when

EMAIL, PASSWORD = "ada@example.com", "a password of ada's"
FLOW = Workflow(
    name="flow",
    nodes=[
        Node("shout", "TEXT_TRANSFORM", {"transform": "uppercase", "text": cel("input.name")}),
        Node("say", "PYTHON", {"code": "def main(config, inputs):\n    print('said')\n    return inputs['shout']"}),
        Node("never", "TEXT_TRANSFORM", {"transform": "trim"}),
        Node("after", "TEXT_TRANSFORM", {"transform": "trim", "text": "x"}, join="ANY"),
    ],
    edges=[
        Edge("shout", "say"),
        Edge("shout", "never", when("nodes.shout.output.text == 'nobody'")),
        Edge("never", "after"),
    ],
)
FAILING = Workflow(
    name="failing",
    nodes=[
        Node("break", "PYTHON", {"code": "def main(config, inputs): raise ValueError('broken')"}),
        Node("repair", "TEXT_TRANSFORM", {"transform": "trim", "text": " mended "}),
    ],
    edges=[Edge("break", "repair", ON_FAILURE)],
)


def fake_python(config: Any, inputs: Any, log: Any) -> Any:
    """The built-in PYTHON with what it prints in the log."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            return python.run(config, inputs)
    finally:
        log(printed.getvalue())


PLUGINS = {"TEXT_TRANSFORM": text_transform.run, "PYTHON": fake_python}


async def play(address: str) -> None:
    async with Client(address) as visitor:
        token = await _identity(visitor)
    async with Client(address, token) as client:
        await _refusals(client)
        workflow_id = await _workflows(client)
        await _run(client, workflow_id)
        await _failures(client)


async def _identity(visitor: Client) -> str:
    with pytest.raises(UnauthenticatedError):
        await visitor.auth.me()
    assert (await visitor.auth.register(EMAIL, PASSWORD, "Ada")).email == EMAIL
    with pytest.raises(ConflictError):
        await visitor.auth.register(EMAIL, PASSWORD, "Ada")
    with pytest.raises(UnauthenticatedError) as refused:
        await visitor.auth.login(EMAIL, "another password")
    assert refused.value.reason == "BAD_CREDENTIALS"
    return (await visitor.auth.login(EMAIL, PASSWORD)).access_token


async def _refusals(client: Client) -> None:
    assert (await client.auth.me()).name == "Ada"
    wrong = parse_workflow(
        {"name": "w", "dag": {"nodes": [{"id": "a", "type": "NO_SUCH"}], "edges": [{"from": "a", "to": "b"}]}}
    )
    with pytest.raises(InvalidArgumentError) as refused:
        await client.workflows.create(wrong)
    assert refused.value.reason == "INVALID_DAG"
    assert {each.field for each in refused.value.violations} == {"dag.nodes[0].type", "dag.edges[0].to"}
    for call in (client.workflows.get("0a1b"), client.runs.get("0a1b"), client.workflows.delete("0a1b")):
        with pytest.raises(NotFoundError):
            await call


async def _workflows(client: Client) -> str:
    made = await client.workflows.create(FLOW.document())
    assert (made.name, made.current_version, len(made.dag.nodes)) == ("flow", 1, 4)
    changed = await client.workflows.update(made.id, description="d", dag=FAILING.document().dag)
    assert (changed.name, changed.description, changed.current_version) == ("flow", "d", 2)
    versions = (await client.workflows.versions(made.id)).versions
    assert [each.number for each in versions] == [2, 1]
    pinned = await client.workflows.pin(made.id, versions[1].id)
    assert (pinned.pinned_version_id, len(pinned.dag.nodes)) == (versions[1].id, 4)
    other = await client.workflows.create(FLOW.document())
    page = await client.workflows.list(Page(size=1))
    assert [each.id for each in page.workflows] == [other.id]
    rest = await client.workflows.list(Page(token=page.next_page_token))
    assert ([each.id for each in rest.workflows], rest.next_page_token) == ([made.id], "")
    await client.workflows.delete(other.id)
    with pytest.raises(NotFoundError):
        await client.workflows.get(other.id)
    return made.id


async def _run(client: Client, workflow_id: str) -> None:
    options = RunOptions(request_id="once", labels={"team": "a"})
    started = await client.runs.start(workflow_id, {"name": "ada"}, options)
    again = await client.runs.start(workflow_id, {"name": "ada"}, options)
    assert (again.id, dict(started.run.labels)) == (started.id, {"team": "a"})
    with pytest.raises(ConflictError) as refused:
        await client.runs.start(workflow_id, {"name": "bob"}, options)
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"

    events = [event async for event in started.watch()]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert (events[0].type, events[-1].type) == (Event.RUN_CREATED, Event.RUN_SUCCEEDED)
    ended = {event.node_id: event.type for event in events if event.node_id}
    assert ended == {
        "shout": Event.STEP_SUCCEEDED,
        "say": Event.STEP_SUCCEEDED,
        "never": Event.STEP_SKIPPED,
        "after": Event.STEP_SKIPPED,
    }
    run = await started.result()
    assert (run.state, plain_value(run.output)) == (Run.SUCCEEDED, {"say": {"text": "ADA"}})
    steps = (await client.runs.steps(run.id)).steps
    assert [(each.node_id, each.state) for each in steps] == [
        ("shout", Step.SUCCEEDED),
        ("say", Step.SUCCEEDED),
        ("never", Step.SKIPPED),
        ("after", Step.SKIPPED),
    ]
    assert [line.text async for line in started.logs("say")] == ["said"]
    assert [each.id for each in (await client.runs.list(state=Run.SUCCEEDED)).runs] == [run.id]
    assert not (await client.runs.list(state=Run.FAILED)).runs
    with pytest.raises(ConflictError):
        await client.runs.cancel(run.id)
    await client.runs.delete(run.id)
    with pytest.raises(NotFoundError):
        await client.runs.get(run.id)


async def _failures(client: Client) -> None:
    handled = await client.workflows.create(FAILING.document())
    run = await client.runs.start(handled.id).result()
    assert (run.state, plain_value(run.output)) == (Run.SUCCEEDED, {"repair": {"text": "mended"}})
    step = await client.runs.step(run.id, "break")
    assert (step.state, step.error.code) == (Step.FAILED, "PLUGIN_ERROR")
    assert "broken" in step.error.message
    alone = Workflow(name="alone", nodes=FAILING.nodes[:1])
    failed = await client.workflows.create(alone.document())
    run = await client.runs.start(failed.id).result()
    assert run.state == Run.FAILED
    assert run.error.message.startswith("step 'break' failed: ")
    with pytest.raises(TowlineError):
        await asyncio.wait_for(client.runs.resume(run.id), 30)
