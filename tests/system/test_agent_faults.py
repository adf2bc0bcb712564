"""Agents that are killed, stopped or cut off: every run ends as without it, and no execution is unaccounted for."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from faulty_network import Way, network
from processes import Installation, Rest, installed, until
from side_file import Execution, SideFile, eventually

Events = Iterator[dict[str, Any]]


def begin(installation: Installation, nodes: list[dict[str, Any]], *edges: tuple[str, str]) -> tuple[Rest, str, Events]:
    """Starts a run of these nodes; returns its id and its history."""
    rest = Rest(installation.http)
    rest.sign_in()
    dag = {"nodes": nodes, "edges": [{"from": a, "to": b} for a, b in edges]}
    workflow = rest.post("/workflows", {"name": "scenario", "dag": dag})
    run_id = rest.post(f"/workflows/{workflow['id']}/execute", {})["id"]
    return rest, run_id, rest.events(run_id)


def two(side: SideFile) -> list[dict[str, Any]]:
    return [side.node("step", gated=True), side.node("next")]


async def seen(events: Events, kind: str, node_id: str = "") -> dict[str, Any]:
    """Returns the next event of a kind; a run that fails meanwhile is not waited for."""

    def wanted(event: dict[str, Any]) -> bool:
        assert event["type"] != "RUN_FAILED", event
        return event["type"] == kind and node_id in ("", event["nodeId"])

    return await until(events, wanted)


async def connected(installation: Installation, side: SideFile) -> None:
    """Returns once the agent has worked: from then on it asks for more over a connection that there is."""
    _, _, events = begin(installation, [side.node("before")])
    await seen(events, "RUN_SUCCEEDED")


async def gone(execution: Execution) -> None:
    await eventually(lambda: not psutil.pid_exists(execution.pid))


async def refused(installation: Installation, agent: str) -> None:
    """Returns once an agent has heard that a lease, or a result under it, is not its own any more."""
    await eventually(lambda: installation.said(agent, '"RELEASE"') or installation.said(agent, "result_discarded"))


def states(rest: Rest, run_id: str, node_id: str) -> list[str]:
    return [attempt["state"] for attempt in rest.get(f"/runs/{run_id}/steps/{node_id}")["attempts"]]


def test_an_agent_killed_at_every_moment_of_an_attempt(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        with network() as net:
            async with installed(tmp_path, net=net) as installation:
                [link] = installation.links("agent-1")

                # Idle: nothing is lost, and it comes back.
                await installation.kill("agent-1")
                await installation.restart("agent-1")

                # Leased, but never started: the offer is on its way.
                await connected(installation, side)
                link.drop(Way.DOWN)
                nodes = [side.node("first"), side.node("running", gated=True), side.node("unreported", gated=True)]
                rest, run_id, events = begin(
                    installation,
                    [*nodes, side.node("last")],
                    ("first", "running"),
                    ("running", "unreported"),
                    ("unreported", "last"),
                )
                await seen(events, "STEP_OFFERED", "first")
                await installation.kill("agent-1")
                link.heal()
                await installation.restart("agent-1")

                # Running: its processes die with it.
                execution = await side.begun("running")
                await seen(events, "STEP_STARTED", "running")
                await installation.kill("agent-1")
                await gone(execution)
                side.open("running")
                await installation.restart("agent-1")

                # Ended, but not reported: the next process delivers the result from the spool.
                await side.begun("unreported")
                await seen(events, "STEP_STARTED", "unreported")
                link.drop()
                side.open("unreported")
                await eventually(lambda: list((tmp_path / "agent-1" / "results").glob("*.result")))
                await installation.kill("agent-1")
                link.cut()
                link.heal()
                await installation.restart("agent-1")

                # Reported: what it did counts.
                await seen(events, "STEP_SUCCEEDED", "unreported")
                await installation.kill("agent-1")
                await installation.restart("agent-1")
                await seen(events, "RUN_SUCCEEDED")
                side.check(rest, run_id)
                assert states(rest, run_id, "running")[0] == "LOST"
                assert states(rest, run_id, "unreported") == ["SUCCEEDED"]

    asyncio.run(scenario())


@pytest.mark.parametrize("meanwhile", ["it runs on", "it ends"])
def test_a_zombie_changes_nothing_when_it_comes_back(tmp_path: Path, meanwhile: str) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_LEASE_SECONDS="2") as installation:
            rest, run_id, events = begin(installation, two(side), ("step", "next"))
            zombie = await side.begun("step")
            await seen(events, "STEP_STARTED", "step")
            installation.stop("agent-1")
            await asyncio.gather(seen(events, "STEP_ATTEMPT_LOST", "step"), installation.start_agent("agent-2"))
            other = await side.begun("step", attempt=2)
            if meanwhile == "it ends":
                side.open("step", attempt=1)
                await eventually(lambda: side.executions(run_id, "step")[0].ended)
            installation.go_on("agent-1")
            await gone(zombie)
            await refused(installation, "agent-1")
            side.open("step", attempt=other.attempt)
            await seen(events, "RUN_SUCCEEDED")
            side.check(rest, run_id, zombies=[zombie.pid])
            assert states(rest, run_id, "step")[0] == "LOST"

    asyncio.run(scenario())


def test_a_partition_shorter_than_the_lease_costs_nothing(tmp_path: Path) -> None:
    side = SideFile(tmp_path)
    faults: list[tuple[Way, ...]] = [(), (Way.UP,), (Way.DOWN,)]

    async def scenario() -> None:
        with network() as net:
            async with installed(tmp_path, net=net, TOWLINE_OFFER_SECONDS="60") as installation:
                [link] = installation.links("agent-1")
                names = [f"within-{number}" for number in range(len(faults))]
                nodes = [side.node(name, gated=True) for name in ["across", *names]]
                rest, run_id, events = begin(installation, nodes, *itertools.pairwise(names))
                await side.begun("across")
                for name, ways in zip(names, faults, strict=True):
                    await side.begun(name)
                    link.drop(*ways)
                    side.open(name)
                    await eventually(lambda: list((tmp_path / "agent-1" / "results").glob("*.result")))
                    link.heal()
                    await seen(events, "STEP_SUCCEEDED", name)
                side.open("across")
                await seen(events, "RUN_SUCCEEDED")
                side.check(rest, run_id)
                assert [states(rest, run_id, node) for node in ["across", *names]] == [["SUCCEEDED"]] * 4

    asyncio.run(scenario())


def test_connections_that_break_cost_nothing(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        with network() as net:
            async with installed(tmp_path, net=net, TOWLINE_OFFER_SECONDS="60") as installation:
                [link] = installation.links("agent-1")
                names = [f"s{number}" for number in range(4)]
                edges = itertools.pairwise(names)
                rest, run_id, events = begin(installation, [side.node(name, gated=True) for name in names], *edges)
                faults = [link.cut, link.refuse, lambda: link.half_close(Way.UP), lambda: link.half_close(Way.DOWN)]
                for name, fault in zip(names, faults, strict=True):
                    await side.begun(name)
                    fault()
                    side.open(name)
                    link.heal()
                    await seen(events, "STEP_SUCCEEDED", name)
                await seen(events, "RUN_SUCCEEDED")
                side.check(rest, run_id)
                assert [states(rest, run_id, name) for name in names] == [["SUCCEEDED"]] * 4

    asyncio.run(scenario())


@pytest.mark.parametrize("ways", [(), (Way.DOWN,)], ids=["both ways", "answers only"])
def test_an_agent_cut_off_for_longer_fences_itself_first(tmp_path: Path, ways: tuple[Way, ...]) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        with network() as net:
            async with installed(tmp_path, net=net, TOWLINE_LEASE_SECONDS="2") as installation:
                rest, run_id, events = begin(installation, two(side), ("step", "next"))
                first = await side.begun("step")
                await seen(events, "STEP_STARTED", "step")
                await installation.start_agent("agent-2")
                [link] = installation.links("agent-1")
                link.drop(*ways)
                await side.begun("step", attempt=2)
                assert not psutil.pid_exists(first.pid)
                link.heal()
                await refused(installation, "agent-1")
                side.open("step")
                await seen(events, "RUN_SUCCEEDED")
                side.check(rest, run_id)
                assert states(rest, run_id, "step")[0] == "LOST"

    asyncio.run(scenario())


def test_a_fenced_agent_that_is_back_in_time_gives_the_attempt_up_itself(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        with network() as net:
            # The lease is over for the agent before it is for the control plane.
            async with installed(tmp_path, net=net, TOWLINE_LEASE_SECONDS="2") as installation:
                rest, run_id, events = begin(installation, [side.node("step", gated=True)])
                first = await side.begun("step")
                await seen(events, "STEP_STARTED", "step")
                [link] = installation.links("agent-1")
                link.drop(Way.UP)
                await gone(first)
                link.heal()
                await seen(events, "STEP_ATTEMPT_LOST", "step")
                side.open("step")
                await seen(events, "RUN_SUCCEEDED")
                side.check(rest, run_id)

    asyncio.run(scenario())


def test_a_start_that_was_never_acknowledged_ends_before_the_step_goes_elsewhere(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        with network() as net:
            async with installed(tmp_path, net=net, TOWLINE_OFFER_SECONDS="3") as installation:
                [link] = installation.links("agent-1")
                await connected(installation, side)
                link.drop(Way.DOWN)
                rest, run_id, events = begin(installation, [side.node("step", gated=True)])
                await seen(events, "STEP_OFFERED", "step")
                link.drop(Way.UP)
                link.heal(Way.DOWN)
                first = await side.begun("step")
                await asyncio.gather(seen(events, "STEP_OFFER_EXPIRED", "step"), installation.start_agent("agent-2"))
                await eventually(lambda: len(side.executions(run_id, "step")) == 2)
                side.open("step")
                await seen(events, "RUN_SUCCEEDED")
                link.heal()
                side.check(rest, run_id)
                second = side.executions(run_id, "step")[1]
                assert second.key == first.key, "an offer that nobody confirmed costs no attempt"

    asyncio.run(scenario())
