"""The process of a control plane is killed at some points for real; another one on its file goes on (F1, F5)."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys

import doomed
import pytest
from lives import Stage
from plots import PLOTS, Cast, Plot
from test_crash_points import cast_of, check

from towline_controlplane.ids import new_id

POINTS = (9, 33, 70, 101)


@pytest.mark.parametrize("plot", PLOTS[:1], ids=lambda plot: plot.name)
def test_another_process_goes_on(sqlite_url: str, plot: Plot) -> None:
    stage = Stage(sqlite_url)
    first = asyncio.run(cast_of(stage.life(), plot))
    asyncio.run(stage.database.close())
    for runs, at in enumerate(POINTS, 1):
        key = new_id()
        assert killed(sqlite_url, plot, first.version.id, key, at)
        asyncio.run(go_on(sqlite_url, first, key, runs))


def killed(url: str, plot: Plot, version_id: str, key: str, at: int) -> bool:
    """Tells whether the process got as far as the point and died there."""
    command = [sys.executable, doomed.__file__ or "", url, plot.name, version_id, key, str(at)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


async def go_on(url: str, first: Cast, key: str, runs: int) -> None:
    """The client repeats its request; the agent was killed too and comes back under a new session."""
    stage = Stage(url)
    stage.clock.advance(runs * 3600)
    life = stage.life()
    plot = dataclasses.replace(first.plot, duties=("offers", "leases"))
    cast = Cast(plot, first.version, first.agent, key)
    first.agent.rig, first.agent.session_id = life.rig, new_id()
    await first.agent.open_session()
    assert await life.survives(cast.play(life))
    await check(life, cast, runs)
    await stage.database.close()
