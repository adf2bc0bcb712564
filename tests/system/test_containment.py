"""The strongest sandbox through real processes: a step that demands it gets it, and a bomb in it harms nobody."""

import asyncio
import os
from pathlib import Path

import pytest
from processes import installed
from test_agent_faults import begin

from towline_agent import cgroups
from towline_agent.cgroup_files import Controller

FORK_FOR_EVER = "import os\nwhile True:\n    os.fork()"


def contains() -> bool:
    """Whether there are groups here that limit memory and processes, and users to give."""
    try:
        groups = cgroups.claim()
    except cgroups.Unavailable:
        return False
    groups.dissolve()
    return os.geteuid() == 0 and groups.folders.keys() >= {Controller.MEMORY, Controller.PIDS}


@pytest.mark.skipif(not contains(), reason="this host or this user has no groups that limit memory and processes")
def test_a_step_that_demands_the_strongest_sandbox_gets_it_and_a_fork_bomb_ends_alone(tmp_path: Path) -> None:
    def shell(name: str, command: str) -> dict[str, object]:
        return {"id": name, "type": "SHELL", "minSandbox": "L4", "config": {"command": command}}

    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            await installation.start_agent(TOWLINE_AGENT_SANDBOX="auto")
            nodes = [shell("honest", "sleep 1; id -u"), shell("bomb", f"python3 -c '{FORK_FOR_EVER}'")]
            rest, run_id, events = begin(installation, nodes)
            await asyncio.to_thread(lambda: list(events))
            honest, bomb = (rest.get(f"/runs/{run_id}/steps/{name}") for name in ("honest", "bomb"))
            assert (honest["state"], bomb["state"]) == ("SUCCEEDED", "FAILED")
            assert {each["sandboxLevel"] for step in (honest, bomb) for each in step["attempts"]} == {"L4"}
            assert int(honest["output"]["stdout"]) >= 1000
            assert bomb["attempts"][-1]["evidence"]["cause"] == "PROCESS_LIMIT"

    asyncio.run(scenario())
