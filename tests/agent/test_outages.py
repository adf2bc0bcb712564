"""An agent whose control plane is away for five minutes: what ended waits on disk, and is delivered exactly once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from running_agent import DONE, World, run, running, settled

from towline.v1.agent_service_pb2 import AttemptResult
from towline_agent.execution import Exit, Launch, OnOutput, OutputStream
from towline_agent.testing import FakeControlPlane, make_offer

OUTAGE_SECONDS = 300.0
WITHIN_LEASE_SECONDS = 10.0
EARLY = [f"line {number}" for number in range(5)]
LATE = [f"line {number}" for number in range(5, 200)]


@dataclass
class Talker:
    """A step that says half of its lines at once, and the rest when it is let go."""

    node: str
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, launch: Launch, on_output: OnOutput) -> Exit:
        say(on_output, EARLY)
        await self.go_on.wait()
        say(on_output, LATE)
        return DONE


def say(on_output: OnOutput, lines: list[str]) -> None:
    for line in lines:
        on_output(OutputStream.STDOUT, f"{line}\n".encode())


async def looked(holds: Callable[[], object]) -> None:
    """Returns once `holds()` is true; nobody says so while the control plane is away."""
    while True:
        if holds():
            return
        await asyncio.sleep(0)


async def talking(world: World, *nodes: str) -> list[Talker]:
    """Starts steps; returns once the control plane knows of them and has their first lines."""
    fake = world.control_plane
    talkers = [Talker(node) for node in nodes]
    for talker in talkers:
        world.supervisor.script(talker.node, talker.play)
        fake.offer(make_offer(talker.node))
    for node in nodes:
        await world.supervisor.started(node)
        await world.acknowledged(node)
    world.clock.advance(0.1)
    await fake.until(lambda: all(node in fake.logs and lines(fake, node) == EARLY for node in nodes))
    return talkers


async def ended(world: World, *talkers: Talker) -> None:
    """Lets steps end; returns once their results are on disk."""
    for talker in talkers:
        talker.go_on.set()
        await world.supervisor.ended(talker.node)
    await looked(lambda: len(finished(world)) == len(talkers))


def finished(world: World) -> list[str]:
    return [name for name in world.files("results") if name.endswith(".result")]


def lines(fake: FakeControlPlane, node: str) -> list[str]:
    """The lines of a log, without their time and stream."""
    return [line.split(" ", 2)[2] for line in fake.logs[node].data.decode().splitlines()]


def check_delivered_once(fake: FakeControlPlane, *nodes: str) -> None:
    """Each result was sent in one Report, and each byte of the logs in one request."""
    assert sorted(result.lease.node_id for report in fake.reports for result in report.results) == sorted(nodes)
    for node in nodes:
        sent = [request for request in fake.log_requests if request.lease.node_id == node]
        assert b"".join(request.data for request in sent) == fake.logs[node].data
        assert fake.logs[node].final


def test_what_ended_while_the_control_plane_was_away_is_delivered_exactly_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, slots=3) as world:
            fake = world.control_plane
            first, second, _ = await talking(world, "first", "second", "endless")
            fake.away = True
            world.clock.advance(WITHIN_LEASE_SECONDS)
            await ended(world, first, second)
            world.clock.advance(OUTAGE_SECONDS - WITHIN_LEASE_SECONDS)
            await world.supervisor.ended("endless")
            await looked(lambda: len(finished(world)) == 3)
            assert len(world.supervisor.killed) == 1, "only what still ran is fenced"
            assert len(world.files("logs")) == 3
            assert fake.results == {}
            fake.come_back()
            await fake.until(lambda: len(fake.results) == 3)
            await settled(world)
            check_delivered_once(fake, "first", "second", "endless")
            assert {node: result.outcome for node, result in fake.results.items()} == {
                "first": AttemptResult.SUCCEEDED,
                "second": AttemptResult.SUCCEEDED,
                "endless": AttemptResult.LOST,
            }
            assert lines(fake, "first") == lines(fake, "second") == EARLY + LATE
            assert lines(fake, "endless") == EARLY

    run(scenario)


def test_an_agent_restarted_while_the_control_plane_is_away_delivers_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        fake = FakeControlPlane()
        async with running(tmp_path, fake=fake) as world:
            first, second = await talking(world, "first", "second")
            fake.away = True
            await ended(world, first, second)
        async with running(tmp_path, fake=fake) as world:
            world.clock.advance(OUTAGE_SECONDS)
            assert len(finished(world)) == 2
            fake.come_back()
            await fake.until(lambda: len(fake.results) == 2 and all(log.final for log in fake.logs.values()))
            await settled(world)
            # The new process does not know how far the old one had come: they are sent again, and stand once.
            assert lines(fake, "first") == lines(fake, "second") == EARLY + LATE
            assert [len(report.results) for report in fake.reports] == [2]
            assert {result.outcome for result in fake.results.values()} == {AttemptResult.SUCCEEDED}
            assert world.supervisor.launches == [], "what had ended was not run again"

    run(scenario)
