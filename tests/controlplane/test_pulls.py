"""A Pull that waits: woken for what it may have, out of the line while it may have nothing (I19, I28)."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from agent_protocol_rig import protocol
from rig import FakeAgent, Rig, Scenario

from towline.v1 import agent_service_pb2 as pb
from towline_controlplane.bus import agent_topic
from towline_controlplane.model import WorkflowVersion
from towline_controlplane.services import agent_messages, agent_protocol
from towline_controlplane.services.agent_protocol import AgentProtocol
from towline_controlplane.services.callers import enter_agent
from towline_controlplane.store import agents

Play: TypeAlias = Callable[[Scenario], None]
Pulls: TypeAlias = Sequence[Coroutine[Any, Any, list[str]]]
Scene: TypeAlias = Callable[[Rig, WorkflowVersion, FakeAgent, Pulls], Awaitable[None]]


async def pull(rig: Rig, service: AgentProtocol, agent: FakeAgent, want: int, seconds: float) -> list[str]:
    """Returns the nodes of the steps that the agent is offered."""
    record = await rig.database.read(lambda tx: agents.get_agent(tx, agent.id))
    assert record is not None
    enter_agent(record)
    request = pb.PullRequest(session_id=agent.session_id, want=want, wait=agent_messages.duration(seconds))
    context: Any = None
    return [offer.lease.node_id for offer in (await service.Pull(request, context)).offers]


async def set_drained(rig: Rig, agent: FakeAgent, *, drained: bool) -> None:
    await rig.database.write(lambda tx: agents.set_drained(tx, agent.id, drained=drained))
    rig.doorbell.ring([agent_topic(agent.id)])


async def in_line(rig: Rig, count: int) -> None:
    """Returns once so many pulls stand in line."""
    async with asyncio.timeout(10):
        while max((len(line.waiting) for line in rig.doorbell.lines.values()), default=0) != count:
            await rig.database.read(lambda tx: None)


@pytest.fixture
def scene(tmp_path: Path, play: Play, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], None]:
    """Plays with two agents and a workflow of one step; no Pull looks again unless it is woken."""
    monkeypatch.setattr(agent_protocol, "_POLL_SECONDS", 3600.0)

    def in_control_plane(scene: Scene) -> None:
        async def scenario(rig: Rig) -> None:
            version = await rig.workflow(["a"])
            await rig.orchestrator.queues.ensure(rig.orchestrator.blueprints.add(version).queues)
            service = protocol(rig, tmp_path / "blobs")
            first, second = await rig.agent("first", slots=1), await rig.agent("second", slots=1)
            pulls = [pull(rig, service, agent, 1, 25.0) for agent in (first, second)]
            await scene(rig, version, first, pulls)

        play(scenario)

    return in_control_plane


def test_a_drain_takes_a_waiting_pull_out_of_the_line_at_once(scene: Callable[[Scene], None]) -> None:
    async def drained_while_waiting(rig: Rig, version: WorkflowVersion, first: FakeAgent, pulls: Pulls) -> None:
        waiting, other = [asyncio.create_task(each) for each in pulls]
        await in_line(rig, 2)
        await set_drained(rig, first, drained=True)
        await in_line(rig, 1)
        await rig.start_version(version)
        assert await asyncio.wait_for(other, 10) == ["a"]
        waiting.cancel()

    scene(drained_while_waiting)


def test_a_drain_that_nobody_heard_of_costs_the_next_in_line_nothing(scene: Callable[[Scene], None]) -> None:
    async def drained_unheard(rig: Rig, version: WorkflowVersion, first: FakeAgent, pulls: Pulls) -> None:
        waiting = asyncio.create_task(pulls[0])
        await in_line(rig, 1)
        other = asyncio.create_task(pulls[1])
        await in_line(rig, 2)
        await rig.database.write(lambda tx: agents.set_drained(tx, first.id, drained=True))
        await rig.start_version(version)
        assert await asyncio.wait_for(other, 10) == ["a"]
        waiting.cancel()

    scene(drained_unheard)


def test_a_pull_of_a_drained_agent_goes_on_when_the_drain_is_taken_back(scene: Callable[[Scene], None]) -> None:
    async def undrained(rig: Rig, version: WorkflowVersion, first: FakeAgent, pulls: Pulls) -> None:
        waiting, other = [asyncio.create_task(each) for each in pulls]
        await in_line(rig, 2)
        other.cancel()
        await in_line(rig, 1)
        await set_drained(rig, first, drained=True)
        await in_line(rig, 0)
        await rig.start_version(version)
        await set_drained(rig, first, drained=False)
        assert await asyncio.wait_for(waiting, 10) == ["a"]

    scene(undrained)
