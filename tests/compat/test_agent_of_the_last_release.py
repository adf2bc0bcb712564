"""The agent of the last release, as it was, at the control plane of today; and the agent of today in its folder."""

import asyncio
from pathlib import Path
from typing import Any

from last_release import Release
from processes import Installation, Rest, installed
from side_file import SideFile, eventually
from test_agent_faults import Events, begin

NODES: list[dict[str, Any]] = [
    {"id": "text", "type": "TEXT_TRANSFORM", "config": {"transform": "uppercase", "text": "hello"}},
    {"id": "python", "type": "PYTHON", "config": {"code": "def main(config, inputs):\n    return inputs['text']"}},
    {"id": "shell", "type": "SHELL", "config": {"command": "echo to stdout; echo to stderr >&2"}},
]
FAILING = {
    "id": "fails",
    "type": "SHELL",
    "config": {"command": "exit 75"},
    "retryConfig": {"maxAttempts": 2, "backoffMs": 1},
}


async def end_of(events: Events) -> str:
    """Returns the last event of a run once it has ended."""
    return (await asyncio.to_thread(list, events))[-1]["type"]


def lines_of(rest: Rest, run_id: str, node_id: str) -> set[tuple[str, str]]:
    stream = rest.stream(f"/runs/{run_id}/logs?nodeId={node_id}")
    return {(line["stream"], line["text"]) for name, line in stream if name != "end"}


def test_it_runs_steps_and_delivers_their_logs(tmp_path: Path, release: Release) -> None:
    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            await installation.start_agent(python=release.python)
            rest, run_id, events = begin(installation, NODES, ("text", "python"), ("python", "shell"))
            assert await end_of(events) == "RUN_SUCCEEDED"
            steps = {step["nodeId"]: step for step in rest.get(f"/runs/{run_id}/steps")["steps"]}
            assert steps["python"]["output"] == {"text": "HELLO"}
            assert lines_of(rest, run_id, "shell") == {("STDOUT", "to stdout"), ("STDERR", "to stderr")}

            rest, run_id, events = begin(installation, [FAILING])
            assert await end_of(events) == "RUN_FAILED"
            attempts = rest.get(f"/runs/{run_id}/steps/fails")["attempts"]
            assert [attempt["state"] for attempt in attempts] == ["FAILED", "FAILED"]

    asyncio.run(scenario())


def test_it_stops_what_is_cancelled(tmp_path: Path, release: Release) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            await installation.start_agent(python=release.python)
            rest, run_id, events = begin(installation, [side.node("long", gated=True)])
            await side.begun("long")
            rest.post(f"/runs/{run_id}/cancel")
            assert await end_of(events) == "RUN_CANCELLED"
            side.check(rest, run_id)

    asyncio.run(scenario())


def test_what_it_does_not_know_is_left_to_a_newer_agent(tmp_path: Path, release: Release) -> None:
    asks = {"id": "more", "type": "SHELL", "config": {"command": "true"}, "limits": {"processes": 50}}

    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            await installation.start_agent("old", python=release.python)
            rest, run_id, events = begin(installation, [asks])
            explained = rest.get(f"/runs/{run_id}/steps/more/explain")
            assert "old its version 0.1.0 does not know" in explained["summary"], explained
            await installation.start_agent("new")
            assert await end_of(events) == "RUN_SUCCEEDED"
            assert agent_of(installation, rest, run_id, "more") == "new"

    asyncio.run(scenario())


def agent_of(installation: Installation, rest: Rest, run_id: str, node_id: str) -> str:
    (attempt,) = rest.get(f"/runs/{run_id}/steps/{node_id}")["attempts"]
    admin = Rest(installation.http)
    admin.sign_in("admin@example.com")
    return admin.get(f"/agents/{attempt['agentId']}")["name"]


def test_the_new_version_delivers_what_the_old_one_could_not(tmp_path: Path, release: Release) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            await installation.start_agent(python=release.python)
            rest, run_id, _ = begin(installation, [side.node("step", gated=True)])
            await side.begun("step")
            await installation.kill("controlplane")
            side.open("step")
            await spooled(installation)
            await end(installation, "agent-1")
            assert list((tmp_path / "agent-1/results").iterdir())
            await installation.restart("controlplane")
            await installation.start_agent()
            assert await end_of(rest.events(run_id)) == "RUN_SUCCEEDED"
            assert lines_of(rest, run_id, "step") == {("STDOUT", "done")}
            assert len(side.executions(run_id)) == 1
            side.check(rest, run_id)

    asyncio.run(scenario())


async def spooled(installation: Installation) -> None:
    results = installation.folder / "agent-1" / "results"
    await eventually(lambda: list(results.glob("*.result")))


async def end(installation: Installation, name: str) -> None:
    """Stops an agent as a service manager does."""
    assert await installation.parts[name].stop(60)
