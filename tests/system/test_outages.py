"""A control plane that cannot be reached for a minute of real time, by agents that go on meanwhile."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from faulty_network import Link, network
from processes import Installation, Rest, installed
from side_file import SideFile, eventually
from test_agent_faults import Events, begin, gone, seen, states

OUTAGE_SECONDS = 60


class Chatter:
    """A gated step that counts aloud, in its log and in a file, for as long as it runs."""

    def __init__(self, folder: Path, side: SideFile) -> None:
        self._said = folder / "said"
        self._side = side

    def node(self, node_id: str) -> dict[str, Any]:
        """Returns the node; what an attempt says is what is in its file, unless it was killed."""
        node = self._side.node(node_id, gated=True, timeoutMs=200_000)
        said = f'"{self._said}.$TOWLINE_NODE_ID.$TOWLINE_ATTEMPT"'
        count = f"while n=$((n+1)); echo $n | tee -a {said}; [ ! -e {said}.stop ]; do sleep 0.1; done"
        node["config"]["command"] = f"({count}) & {node['config']['command']}; touch {said}.stop; wait"
        return node

    def said(self, node_id: str, attempt: int) -> list[str]:
        """Returns the numbers that an attempt has said."""
        return Path(f"{self._said}.{node_id}.{attempt}").read_text().split()


def logged(rest: Rest, run_id: str, node_id: str, attempt: int) -> list[str]:
    """Returns the lines of an attempt as they are stored."""
    lines = [data for name, data in rest.stream(f"/runs/{run_id}/logs?nodeId={node_id}") if name != "end"]
    return [line["text"] for line in lines if line["attempt"] == attempt]


async def whole_log(rest: Rest, run_id: str, node_id: str, attempt: int = 1) -> list[str]:
    """Returns the lines of an attempt once all bytes that its agent named at its end are there."""

    def complete() -> bool:
        attempts = rest.get(f"/runs/{run_id}/steps/{node_id}")["attempts"]
        return attempts[attempt - 1]["log"]["state"] == "COMPLETE"

    await eventually(complete)
    return logged(rest, run_id, node_id, attempt)


def numbers(lines: list[str]) -> list[str]:
    return [line for line in lines if line.isdigit()]


async def acknowledged(installation: Installation, events: Events, steps: int) -> None:
    """Returns once the agent has heard that its starts are known: a later answer has told it something else."""
    for _ in range(steps):
        await seen(events, "STEP_STARTED")
    admin = Rest(installation.http)
    admin.sign_in("admin@example.com")
    for order in ("drain", "undrain"):
        admin.post(f"/agents/agent-1/{order}")
        await eventually(lambda order=order: installation.said("agent-1", f'"{order}ed_by_admin"'))


async def away(link: Link) -> None:
    """Returns when the agent can reach the control plane again."""
    await asyncio.sleep(OUTAGE_SECONDS)
    link.heal()


@pytest.mark.timeout(240)
def test_a_minute_within_the_lease_costs_nothing(tmp_path: Path) -> None:
    side = SideFile(tmp_path)
    chatter = Chatter(tmp_path, side)

    async def scenario() -> None:
        with network() as net:
            async with installed(tmp_path, net=net, TOWLINE_LEASE_SECONDS="120") as installation:
                [link] = installation.links("agent-1")
                nodes = [chatter.node("across"), chatter.node("ending"), side.node("next")]
                rest, run_id, events = begin(installation, nodes, ("ending", "next"))
                await asyncio.gather(side.begun("across"), side.begun("ending"))
                await acknowledged(installation, events, steps=2)
                link.drop()
                side.open("ending")
                await eventually(lambda: list((tmp_path / "agent-1" / "results").glob("*.result")))
                across = len(chatter.said("across", 1))
                await away(link)
                assert len(chatter.said("across", 1)) > across, "it went on meanwhile"
                side.open("across")
                await seen(events, "RUN_SUCCEEDED")
                side.check(rest, run_id)
                assert [states(rest, run_id, node["id"]) for node in nodes] == [["SUCCEEDED"]] * 3
                assert len(side.executions()) == 3
                for node_id in ("across", "ending"):
                    lines = await whole_log(rest, run_id, node_id)
                    assert numbers(lines) == chatter.said(node_id, 1)
                    assert lines.count("done") == 1

    asyncio.run(scenario())


@pytest.mark.timeout(240)
def test_a_minute_beyond_the_lease_reruns_what_was_cut_off_and_nothing_overlaps(tmp_path: Path) -> None:
    side = SideFile(tmp_path)
    chatter = Chatter(tmp_path, side)

    async def scenario() -> None:
        with network() as net:
            async with installed(tmp_path, net=net, TOWLINE_LEASE_SECONDS="6") as installation:
                [link] = installation.links("agent-1")
                rest, run_id, events = begin(installation, [chatter.node("across"), chatter.node("ending")])
                first, _ = await asyncio.gather(side.begun("across"), side.begun("ending"))
                await acknowledged(installation, events, steps=2)
                link.refuse()
                side.open("ending")
                await eventually(lambda: list((tmp_path / "agent-1" / "results").glob("*.result")))
                await gone(first)  # by its agent alone: nobody can tell it to
                await away(link)
                side.open("across")
                await seen(events, "RUN_SUCCEEDED")
                side.check(rest, run_id)
                assert [states(rest, run_id, node) for node in ("across", "ending")] == [["LOST", "SUCCEEDED"]] * 2
                for node_id in ("across", "ending"):
                    lines = await whole_log(rest, run_id, node_id, 2)
                    assert numbers(lines) == chatter.said(node_id, 2)
                    assert lines.count("done") == 1
                results = tmp_path / "agent-1" / "results"
                await eventually(lambda: not list(results.glob("*.result")))

    asyncio.run(scenario())
