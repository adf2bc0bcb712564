"""A step that kills the agent it runs on, each time: it is given up, and takes nothing else down with it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

from processes import Installation, installed
from side_file import SideFile, eventually
from test_agent_administration import signed_in_admin
from test_agent_faults import begin, seen, states

_KILL_THE_AGENT = """
p=$$
while [ "$p" -gt 1 ]; do
    case "$(tr '\\0' ' ' < /proc/$p/cmdline)" in *"-m towline_agent ") kill -9 "$p" ;; esac
    p=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$p/status)
done
sleep 600
"""


def test_a_step_that_kills_its_agents_fails_and_the_others_go_on(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, agents=0, TOWLINE_LEASE_SECONDS="2") as installation:
            await asyncio.gather(
                installation.start_agent("agent-1", TOWLINE_AGENT_LABELS="zone=a"),
                installation.start_agent("agent-2", TOWLINE_AGENT_LABELS="zone=b"),
            )
            beside = side.node("beside", gated=True, labels={"zone": "b"})
            rest, run_id, events = begin(installation, [beside])
            await side.begun("beside")
            poison = side.node("poison", labels={"zone": "a"}, retryConfig={"maxLost": 1})
            poison["config"]["command"] += "\n" + _KILL_THE_AGENT
            _, poisoned, history = begin(installation, [poison])
            for _ in range(2):
                assert await installation.parts["agent-1"].wait() == -signal.SIGKILL
                await installation.restart("agent-1")
            await eventually(lambda: rest.get(f"/runs/{poisoned}")["state"] == "FAILED")
            assert states(rest, poisoned, "poison") == ["LOST", "LOST"]
            assert len(side.executions(poisoned)) == 2
            assert [event["type"] for event in history].count("STEP_ATTEMPT_LOST") == 2

            # Both agents are there for others, and what ran beside it has never noticed.
            rest, later, after = begin(installation, [side.node("after", labels={"zone": "a"})])
            await seen(after, "RUN_SUCCEEDED")
            side.open("beside")
            await seen(events, "RUN_SUCCEEDED")
            assert states(rest, run_id, "beside") == states(rest, later, "after") == ["SUCCEEDED"]
            side.check(rest, run_id)
            side.check(rest, later)

    asyncio.run(scenario())


@contextlib.asynccontextmanager
async def service_managers(installation: Installation, *names: str) -> AsyncGenerator[list[str]]:
    """Starts agents again whenever they are killed; yields the names of those that were."""
    deaths: list[str] = []

    async def revive(name: str) -> None:
        while True:
            assert await installation.parts[name].wait() == -signal.SIGKILL
            deaths.append(name)
            await installation.restart(name)

    managers = [asyncio.create_task(revive(name)) for name in names]
    try:
        yield deaths
    finally:
        for manager in managers:
            manager.cancel()
        await asyncio.wait(managers)


def test_a_step_that_kills_whichever_agent_it_gets_fails_and_leaves_both_at_work(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with (
            installed(tmp_path, agents=2, TOWLINE_LEASE_SECONDS="2") as installation,
            service_managers(installation, "agent-1", "agent-2") as deaths,
        ):
            names = ["a", "b", "c", "d"]
            rest, run_id, events = begin(
                installation, [side.node(name, gated=True, retryConfig={"maxLost": 9}) for name in names]
            )
            for name in names:
                await side.begun(name)
            poison = side.node("poison", retryConfig={"maxLost": 2})
            poison["config"]["command"] += "\n" + _KILL_THE_AGENT
            _, poisoned, _ = begin(installation, [poison])
            await eventually(lambda: rest.get(f"/runs/{poisoned}")["state"] == "FAILED")
            assert states(rest, poisoned, "poison") == ["LOST", "LOST", "LOST"]
            assert len(side.executions(poisoned)) == 3

            # What ran beside it was lost with its agent, and is run again.
            for name in names:
                side.open(name)
            await seen(events, "RUN_SUCCEEDED")
            side.check(rest, run_id)

            # All slots of both agents are there for others.
            slots = [each["info"]["slots"] for each in signed_in_admin(installation).get("/agents")["agents"]]
            later = [side.node(f"later-{number}", gated=True) for number in range(sum(slots))]
            rest, after, events = begin(installation, later)
            for node in later:
                await side.begun(node["id"])
            for node in later:
                side.open(node["id"])
            await seen(events, "RUN_SUCCEEDED")
            side.check(rest, after)
            assert len(deaths) == 3

    asyncio.run(scenario())
