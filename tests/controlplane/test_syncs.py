"""A Sync that does not name an attempt: the agent has lost sight of it, and the step goes on elsewhere (I28)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent_protocol_rig import protocol
from rig import LEASE_SECONDS, FakeAgent, Rig, Scenario

from towline.v1 import agent_service_pb2 as pb
from towline_controlplane.handouts import StepOffer
from towline_controlplane.model import AttemptState, StepState
from towline_controlplane.services.agent_protocol import AgentProtocol
from towline_controlplane.services.callers import enter_agent
from towline_controlplane.store import agents, runs

Play = Callable[[Scenario], None]


async def sync(rig: Rig, service: AgentProtocol, agent: FakeAgent, *held: StepOffer) -> pb.SyncResponse:
    record = await rig.database.read(lambda tx: agents.get_agent(tx, agent.id))
    assert record is not None
    enter_agent(record)
    request = pb.SyncRequest(session_id=agent.session_id)
    for offer in held:
        attempt = offer.attempt
        lease = pb.Lease(run_id=attempt.run_id, node_id=attempt.node_id, attempt=attempt.number, epoch=attempt.epoch)
        lease.token = offer.token
        request.held.add(lease=lease, phase=pb.HeldAttempt.RUNNING)
    context: Any = None
    return await service.Sync(request, context)


def test_an_attempt_that_its_agent_has_lost_sight_of_is_lost(tmp_path: Path, play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        run = await rig.start(["kept", "forgotten"])
        agent, service = await rig.agent(), protocol(rig, tmp_path / "blobs")
        offers = {offer.step.node_id: offer for offer in await agent.pull()}
        for offer in offers.values():
            await agent.start(offer)
        # A message that was sent before the start may be late; after a lease it cannot be.
        rig.clock.advance(LEASE_SECONDS - 1)
        await sync(rig, service, agent, offers["kept"])
        assert {step.state for step in (await rig.steps(run.id)).values()} == {StepState.LEASED}
        rig.clock.advance(2)
        await sync(rig, service, agent, offers["kept"])
        steps = await rig.steps(run.id)
        assert (steps["kept"].state, steps["forgotten"].state) == (StepState.LEASED, StepState.READY)
        lost = await rig.database.read(lambda tx: runs.get_attempt(tx, run.id, "forgotten", 1))
        assert lost is not None
        assert lost.state is AttemptState.LOST

    play(scenario)
