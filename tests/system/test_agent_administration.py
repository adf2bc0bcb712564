"""What admins and service managers do to agents: signals, drains, new credentials, agents that are disabled."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from processes import PASSWORD, Installation, Rest, installed
from side_file import SideFile, eventually
from test_agent_faults import begin, gone, seen, states, two

from towline_agent.__main__ import ExitCode


def signed_in_admin(installation: Installation) -> Rest:
    rest = Rest(installation.http)
    rest.token = rest.post("/auth/login", {"email": "admin@example.com", "password": PASSWORD})["accessToken"]
    return rest


def agent(admin: Rest, name: str) -> dict[str, Any]:
    return admin.get(f"/agents/{name}")


def credential(folder: Path, name: str) -> dict[str, str]:
    return json.loads((folder / name / "credential.json").read_text())


def test_the_second_signal_hands_back_what_runs_at_once(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, agents=2, TOWLINE_LEASE_SECONDS="30") as installation:
            rest, run_id, events = begin(installation, two(side), ("step", "next"))
            execution = await side.begun("step")
            await seen(events, "STEP_STARTED", "step")
            holder = next(
                name for name in ("agent-1", "agent-2") if agent(signed_in_admin(installation), name)["running"]
            )
            child = installation.parts.pop(holder)
            assert child.pid is not None
            os.kill(child.pid, signal.SIGTERM)
            await eventually(lambda: installation.said(holder, "draining"))
            os.kill(child.pid, signal.SIGTERM)
            assert await child.wait() == ExitCode.STOPPED_AT_ONCE
            await gone(execution)
            await seen(events, "STEP_ATTEMPT_LOST", "step")
            await side.begun("step", attempt=2)
            side.open("step")
            await seen(events, "RUN_SUCCEEDED")
            side.check(rest, run_id)
            assert states(rest, run_id, "step") == ["LOST", "SUCCEEDED"]

    asyncio.run(scenario())


def test_a_credential_is_replaced_while_the_agent_works(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_LEASE_SECONDS="2") as installation:
            admin = signed_in_admin(installation)
            rest, run_id, events = begin(installation, two(side), ("step", "next"))
            await side.begun("step")
            old = credential(tmp_path, "agent-1")
            admin.post("/agents/agent-1/rotate")
            await eventually(lambda: installation.said("agent-1", "credential_replaced"))
            new = credential(tmp_path, "agent-1")
            assert new.keys() == old.keys()
            assert new["credential"] != old["credential"]
            side.open("step")
            await seen(events, "RUN_SUCCEEDED")
            await installation.kill("agent-1")
            await installation.restart("agent-1")
            assert credential(tmp_path, "agent-1") == new
            side.check(rest, run_id)

    asyncio.run(scenario())


def test_a_disabled_agent_ends_and_what_it_ran_goes_elsewhere(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_LEASE_SECONDS="2") as installation:
            admin = signed_in_admin(installation)
            rest, run_id, events = begin(installation, two(side), ("step", "next"))
            execution = await side.begun("step")
            await seen(events, "STEP_STARTED", "step")
            child = installation.parts.pop("agent-1")
            assert admin.post("/agents/agent-1/disable")["disabled"]
            assert await child.wait() == ExitCode.CREDENTIAL_REFUSED
            await gone(execution)
            await installation.start_agent("agent-2")
            await side.begun("step", attempt=2)
            side.open("step")
            await seen(events, "RUN_SUCCEEDED")
            side.check(rest, run_id)
            assert not admin.post("/agents/agent-1/enable")["disabled"]
            await installation.start_agent("agent-1")

    asyncio.run(scenario())


def test_an_agent_hears_of_its_drain_and_of_the_end_of_it(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, TOWLINE_LEASE_SECONDS="2") as installation:
            admin = signed_in_admin(installation)
            admin.post("/agents/agent-1/drain")
            await eventually(lambda: installation.said("agent-1", "drained_by_admin"))
            _, _, events = begin(installation, [side.node("step")])
            admin.post("/agents/agent-1/undrain")
            await eventually(lambda: installation.said("agent-1", "undrained_by_admin"))
            await seen(events, "RUN_SUCCEEDED")

    asyncio.run(scenario())


def test_below_its_disk_floor_an_agent_takes_nothing_and_says_why(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, agents=0) as installation:
            await installation.start_agent("agent-1", TOWLINE_AGENT_DISK_FLOOR_MB=str(1 << 40))
            admin = signed_in_admin(installation)
            await eventually(lambda: "MiB of its disk are free" in agent(admin, "agent-1").get("unschedulable", ""))
            rest, run_id, events = begin(installation, [side.node("step")])
            explained = rest.get(f"/runs/{run_id}/steps/step/explain")["summary"]
            assert "takes nothing now" in explained
            await installation.start_agent("agent-2")
            await seen(events, "RUN_SUCCEEDED")

    asyncio.run(scenario())
