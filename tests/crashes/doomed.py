"""A control plane with its client and agent that kills itself at a point: URL, plot, version, key, point."""

import asyncio
import os
import signal
import sys

from faults import Faults
from lives import Stage
from plots import PLOTS, Cast
from rig import FakeAgent

from towline_controlplane.store import workflows


def kill_self(_driver: object, _committed: bool) -> None:
    """Leaves no time for anything."""
    os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, plot_name: str, version_id: str, key: str, at: int) -> None:
    """Plays until the point, or to the end."""
    stage = Stage(url)
    life = stage.life(Faults(at, kill_self))
    version = await life.rig.database.read(lambda tx: workflows.get_version(tx, version_id))
    assert version is not None
    agent = FakeAgent(life.rig, "id-of-agent-1", 8)
    plot = next(plot for plot in PLOTS if plot.name == plot_name)

    async def play() -> None:
        await agent.open_session()
        await Cast(plot, version, agent, key).play(life)

    await life.survives(play())
    await stage.database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
