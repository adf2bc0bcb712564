"""An agent that is replaced while there is work: no step is lost, and none is executed twice."""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

from load import Load
from processes import PATIENCE_SECONDS, Installation, Rest, installed
from side_file import SideFile, eventually
from test_agent_faults import begin, seen


def executed_once(side: SideFile) -> None:
    counts = Counter((each.run_id, each.node_id) for each in side.executions())
    assert {key: count for key, count in counts.items() if count > 1} == {}


async def towline_agent(installation: Installation, *arguments: str) -> None:
    """Runs a command of an admin."""
    admin = Rest(installation.http)
    await asyncio.to_thread(admin.sign_in, "admin@example.com")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "towline_cli", "agent", *arguments),
        env={"PATH": os.environ["PATH"], "TOWLINE_SERVER": installation.grpc, "TOWLINE_TOKEN": admin.token},
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await command.wait() == 0


async def replace(installation: Installation, name: str) -> None:
    """Stops an agent as a service manager does, and starts what may be another version on its folder."""
    assert await installation.parts[name].stop(PATIENCE_SECONDS)
    await installation.restart(name)


def test_an_upgrade_by_drain_under_load(tmp_path: Path) -> None:
    side = SideFile(tmp_path)
    (tmp_path / "long").mkdir()
    long = SideFile(tmp_path / "long")

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            admin = Rest(installation.http)
            await asyncio.to_thread(admin.sign_in, "admin@example.com")
            workflow = admin.post("/workflows", {"name": "long", "dag": {"nodes": [long.node("step", gated=True)]}})
            run_id = admin.post(f"/workflows/{workflow['id']}/execute", {})["id"]
            await long.begun("step")
            draining = asyncio.create_task(towline_agent(installation, "drain", "agent-1", "--wait"))
            await eventually(lambda: admin.get("/agents/agent-1")["drained"])
            load = Load(Rest(installation.http), side)
            await asyncio.to_thread(load.prepare)
            await load.go_on()
            assert not draining.done()
            long.open("step")
            await draining
            await seen(admin.events(run_id), "RUN_SUCCEEDED")
            await replace(installation, "agent-1")
            assert side.executions() == []
            await towline_agent(installation, "undrain", "agent-1")
            await load.check()
            executed_once(side)
            executed_once(long)

    asyncio.run(scenario())


def test_a_plain_restart_under_load(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            load = Load(Rest(installation.http), side)
            await asyncio.to_thread(load.prepare)
            going = asyncio.create_task(load.go_on())
            for _ in range(2):
                await load.executed(4)
                await replace(installation, "agent-1")
            await going
            await load.check()
            executed_once(side)

    asyncio.run(scenario())


def test_what_an_agent_cannot_report_is_reported_by_the_next(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest, run_id, _ = begin(installation, [side.node("step", gated=True)])
            await side.begun("step")
            await installation.kill("controlplane")
            side.open("step")
            results = tmp_path / "agent-1" / "results"
            await eventually(lambda: list(results.glob("*.result")))
            assert await installation.parts["agent-1"].stop(PATIENCE_SECONDS)
            assert list(results.glob("*.result")), "it was lost with the process"
            await installation.restart("controlplane")
            await installation.restart("agent-1")
            await seen(rest.events(run_id), "RUN_SUCCEEDED")
            await eventually(lambda: not list(results.glob("*.result")))
            executed_once(side)
            side.check(rest, run_id)

    asyncio.run(scenario())


def test_a_killed_agent_leaves_its_results_to_the_next(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest, run_id, _ = begin(installation, [side.node("done", gated=True), side.node("broken", gated=True)])
            await side.begun("done")
            await side.begun("broken")
            await installation.kill("controlplane")
            side.open("done")
            await eventually(lambda: list((tmp_path / "agent-1" / "results").glob("*.result")))
            await installation.kill("agent-1")
            await installation.restart("controlplane")
            side.open("broken")
            await installation.restart("agent-1")
            await seen(rest.events(run_id), "RUN_SUCCEEDED")
            assert [each.attempt for each in side.executions(node_id="done")] == [1]
            assert [each.attempt for each in side.executions(node_id="broken")] == [1, 2]
            side.check(rest, run_id)

    asyncio.run(scenario())
