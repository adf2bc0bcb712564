"""The strongest sandbox through real processes: a step that demands it gets it, and a bomb in it harms nobody."""

import asyncio
import os
from pathlib import Path
from typing import Any

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


def test_files_reach_the_next_step_at_every_level(tmp_path: Path) -> None:
    """What a step leaves is kept; what it is given can be read and, once confined, not changed."""
    levels = ["L0", "L3", *(["L4"] if contains() else []), *(["L1", "L2"] if os.geteuid() else [])]
    make = 'mkdir "$TOWLINE_ARTIFACTS/in"; echo made > "$TOWLINE_ARTIFACTS/in/file"'
    read = 'cat "$TOWLINE_INPUTS/$0/in/file"'
    write = '; echo changed 2>&- > "$TOWLINE_INPUTS/$0/in/file" || echo kept'

    def nodes(level: str) -> list[dict[str, Any]]:
        step = {"type": "SHELL", "labels": {"level": level}}
        confined = level >= "L2"
        config = {"command": f"sh -c '{read}{write if confined else ''}' make-{level}"}
        return [
            step | {"id": f"make-{level}", "config": {"command": make}},
            step | {"id": f"read-{level}", "config": config, "fetchArtifacts": True},
        ]

    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            for level in levels:
                settings = {"TOWLINE_AGENT_SANDBOX": level, "TOWLINE_AGENT_LABELS": f"level={level}"}
                await installation.start_agent(f"agent-{level}", **settings)
            rest, run_id, events = begin(
                installation,
                [node for level in levels for node in nodes(level)],
                *((f"make-{level}", f"read-{level}") for level in levels),
            )
            await asyncio.to_thread(lambda: list(events))
            for level in levels:
                step = rest.get(f"/runs/{run_id}/steps/read-{level}")
                assert step["attempts"][-1]["sandboxLevel"] == level
                assert step["output"]["stdout"] == ("made\nkept\n" if level >= "L2" else "made\n"), level

    asyncio.run(scenario())
