"""A step that kills the agent it runs on, each time: it is given up, and takes nothing else down with it."""

import asyncio
import signal
from pathlib import Path

from processes import installed
from side_file import SideFile, eventually
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
