"""A credential that was copied to another host: one of the two works, and the other says why it does not."""

import asyncio
import shutil
from pathlib import Path

import pytest
from processes import installed
from side_file import SideFile, eventually
from test_agent_administration import agent, signed_in_admin
from test_agent_faults import begin, seen

from towline_agent.__main__ import ExitCode
from towline_cli.child import ChildFailedError

HERE, ELSEWHERE = "here.example", "elsewhere.example"


def test_a_second_host_is_refused_while_the_first_lives_and_comes_in_after_it(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path, agents=0, TOWLINE_LEASE_SECONDS="3") as installation:
            await installation.start_agent("agent-1", TOWLINE_AGENT_HOST=HERE)
            (tmp_path / "copy").mkdir(mode=0o700)
            shutil.copy(tmp_path / "agent-1" / "credential.json", tmp_path / "copy")
            rest, run_id, events = begin(installation, [side.node("step", gated=True)])
            await side.begun("step")

            # The first renews its lease: the second gives up, and a service manager need not restart it.
            with pytest.raises(ChildFailedError, match=f"ended with code {ExitCode.SESSION_REPLACED:d}"):
                await installation.start_agent("copy", TOWLINE_AGENT_HOST=ELSEWHERE)
            assert installation.said("copy", f"another process runs with this agent's credential, on host '{HERE}'")
            side.open("step")
            await seen(events, "RUN_SUCCEEDED")
            side.check(rest, run_id)

            # Gone without a word: the second waits for the lease to end, and is the agent.
            await installation.kill("agent-1")
            del installation.parts["agent-1"]
            await installation.start_agent("copy", TOWLINE_AGENT_HOST=ELSEWHERE)
            await eventually(lambda: agent(signed_in_admin(installation), "agent-1")["info"]["hostname"] == ELSEWHERE)
            _, _, events = begin(installation, [side.node("after")])
            await seen(events, "RUN_SUCCEEDED")

    asyncio.run(scenario())
