"""The disk of an agent really runs full: the step that did it says so, the agent takes no more, and recovers (F14)."""

import asyncio
import contextlib
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from processes import Rest, installed
from side_file import SideFile, eventually
from test_agent_administration import agent, signed_in_admin
from test_agent_faults import begin, seen, states

DISK_MB, FLOOR_MB = 64, 16
LINES = 2_000


@contextlib.contextmanager
def small_disk(folder: Path) -> Generator[None]:
    """Makes a folder a disk of its own."""
    folder.mkdir(mode=0o700)
    command = ("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "towline-test", str(folder))
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"NO DISK OF ITS OWN, so nothing is known of one that is full: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)


def log_of(rest: Rest, run_id: str, node_id: str) -> list[str]:
    """Returns the lines of a log that ended."""
    records = rest.stream(f"/runs/{run_id}/logs?nodeId={node_id}&follow=true")
    return [data["text"] for name, data in records if name not in ("end", "error")]


def node_that(side: SideFile, node_id: str, command: str, **fields: Any) -> dict[str, Any]:
    """Returns a gated node that does something once its gate is open."""
    node = side.node(node_id, gated=True, **fields)
    node["config"]["command"] += f"; {command}"
    return node


def test_a_full_disk_fails_the_step_that_filled_it_and_nothing_else(tmp_path: Path) -> None:
    side = SideFile(tmp_path)
    full = tmp_path / "full"
    waits = f"touch {full}; until [ -e {full}.seen ]; do sleep 0.05; done; exit 1"
    fill = f"head -c {2 * DISK_MB}M /dev/zero > fill || {{ {waits}; }}"

    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            await installation.start_agent("agent-1", TOWLINE_AGENT_DISK_FLOOR_MB=str(FLOOR_MB))
            admin = signed_in_admin(installation)
            before = node_that(side, "before", f"seq {LINES}")
            filler = node_that(side, "filler", fill, retryConfig={"maxAttempts": 1})
            beside = node_that(side, "beside", f"seq {LINES}")
            rest, run_id, events = begin(installation, [before, beside])
            for name in ("before", "beside"):
                await side.begun(name)
            side.open("before")
            await seen(events, "STEP_SUCCEEDED", "before")

            # Full to the last byte: the agent takes nothing more, and says why to admins and to who waits for it.
            _, filling, _ = begin(installation, [filler])
            side.open("filler")
            await eventually(full.exists)
            await eventually(lambda: agent(admin, "agent-1").get("unschedulable"))
            reason = agent(admin, "agent-1")["unschedulable"]
            assert reason.endswith(f"MiB of its disk are free, less than {FLOOR_MB} MiB")
            assert [each["unschedulable"] for each in admin.get("/agents")["agents"]] == [reason]
            _, waiting, later = begin(installation, [side.node("later")])
            explained = rest.get(f"/runs/{waiting}/steps/later/explain")
            assert explained["summary"] == f"no agent of 1 takes steps: agent-1 takes nothing now: {reason}"

            # What runs beside it ends there and then: its result is not lost, and what is lost of its log is told.
            side.open("beside")
            await seen(events, "RUN_SUCCEEDED")
            assert agent(admin, "agent-1")["unschedulable"]
            [attempt] = rest.get(f"/runs/{run_id}/steps/beside")["attempts"]
            kept = [line for line in log_of(rest, run_id, "beside") if line.isdigit()]
            assert kept == [str(number) for number in range(1, len(kept) + 1)]
            assert len(kept) + int(attempt["log"]["droppedLines"]) >= LINES
            assert [line for line in log_of(rest, run_id, "before") if line.isdigit()][-1] == str(LINES)

            # Gone with the step that filled it: it says why it failed, and the agent is back for others.
            await asyncio.to_thread(Path(f"{full}.seen").touch)
            await eventually(lambda: rest.get(f"/runs/{filling}")["state"] == "FAILED")
            step = rest.get(f"/runs/{filling}/steps/filler")
            assert (step["error"]["code"], step["error"]["class"]) == ("DISK_FULL", "TRANSIENT")
            assert step["attempts"][0]["evidence"]["cause"] == "DISK_FULL"
            await seen(later, "RUN_SUCCEEDED")
            assert not agent(admin, "agent-1")["unschedulable"]
            assert states(rest, waiting, "later") == ["SUCCEEDED"]
            for each in (run_id, waiting):
                side.check(rest, each)

    with small_disk(tmp_path / "agent-1"):
        asyncio.run(scenario())
