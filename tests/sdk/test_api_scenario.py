"""One scenario of clients passes on the fake control plane and on a whole real installation."""

import asyncio
import os
from pathlib import Path

import pytest
from api_scenario import PLUGINS, play

from towline.v1.run_pb2 import Run
from towline_cli.child_settings import Places
from towline_cli.installation import Installation
from towline_sdk.blocking import BlockingClient
from towline_sdk.errors import ServerError
from towline_sdk.testing import FakeControlPlane
from towline_sdk.workflow import Edge, Node, Workflow

INHERITED = ("HOME", "PATH", "LANG")


def test_the_fake_control_plane_passes() -> None:
    with FakeControlPlane(PLUGINS) as fake:
        asyncio.run(play(fake.address))


@pytest.mark.timeout(300)
def test_the_real_control_plane_passes(tmp_path: Path) -> None:
    async def scenario() -> None:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        async with Installation(Places(tmp_path, 0, 0), inherited=inherited, report=lambda text: None) as running:
            await play(running.grpc)

    asyncio.run(scenario())


def test_a_program_is_tested_with_functions_in_the_place_of_plugins() -> None:
    def greet(config: dict[str, str]) -> dict[str, str]:
        return {"text": f"hello {config['name']}"}

    flow = Workflow(name="w", nodes=[Node("greet", "GREET", {"name": "ada"})])
    with FakeControlPlane({"GREET": greet}) as fake, BlockingClient(fake.address, fake.token) as client:
        made = client.workflows.create(flow.document())
        client.runs.start(made.id)
        (run,) = fake.runs()
        assert run.state == Run.SUCCEEDED
        with pytest.raises(ServerError, match="does not know"):
            client.runs.explain(run.id, "greet")


def test_a_run_can_be_paused_and_cancelled_between_steps() -> None:
    reached: list[str] = []

    def note(config: dict[str, str]) -> None:
        reached.append(config["name"])
        if config["name"] == "a":
            with BlockingClient(fake.address, fake.token) as other:
                (run,) = other.runs.list().runs
                assert other.runs.pause(run.id).state == Run.PAUSED
                other.runs.cancel(run.id)

    flow = Workflow(name="w", nodes=[Node(name, "NOTE", {"name": name}) for name in ("a", "b")], edges=[Edge("a", "b")])
    with FakeControlPlane({"NOTE": note}) as fake, BlockingClient(fake.address, fake.token) as client:
        made = client.workflows.create(flow.document())
        assert client.runs.start(made.id).result().state == Run.CANCELLED
    assert reached == ["a"]
