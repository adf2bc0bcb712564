"""Confined attempts for tests: the levels as root and as an ordinary user, and plugins that tell what they could do."""

import json
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from supervisor_scenario import Stage, play

from towline_agent import cgroups
from towline_agent.cgroup_files import Controller
from towline_agent.execution import EndReason, Launch
from towline_agent.sandbox.levels import Confinement, Level, Network

IS_ROOT = os.geteuid() == 0


def _contains() -> bool:
    """Whether there are groups here that limit memory and processes, and users to give."""
    try:
        groups = cgroups.claim()
    except cgroups.Unavailable:
        return False
    groups.dissolve()
    return IS_ROOT and groups.folders.keys() >= {Controller.MEMORY, Controller.PIDS}


CONTAINS = _contains()
UID = 61_000
USER = UID if IS_ROOT else None
ISOLATED = Confinement(Level.L3, Network.OWN, USER)
CONFINED = Confinement(Level.L2, Network.FILTERED)
LEVELS = [Confinement(Level.L0), Confinement(Level.L1), CONFINED, Confinement(Level.L3, uid=USER), ISOLATED]
SYSCALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(each) for each in arguments])
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def give(launch: Launch) -> Launch:
    """Lets the user of an attempt at what an agent would give it."""
    uid = launch.confinement.uid
    if launch.plugin_dir is not None:
        for path in (launch.plugin_dir, *launch.plugin_dir.iterdir()):
            path.chmod(0o755)
    if uid is not None:
        for path in {launch.work_dir, launch.artifacts_dir}:
            os.chown(path, uid, uid)
    return launch


async def outcome(stage: Stage, code: str, confinement: Confinement, **settings: Any) -> Any:
    """What the function `run` of a plugin returns when it runs confined."""
    ended, output = await stage.run(give(stage.python(code, confinement=confinement, **settings)))
    assert (ended.reason, ended.exit_code) == (EndReason.EXITED, 0), (ended, output.stderr)
    return json.loads(ended.result)


def run(folder: Path, code: str, confinement: Confinement, **settings: Any) -> Any:
    """The same on a stage of its own."""
    found: list[Any] = []

    async def scenario(stage: Stage) -> None:
        found.append(await outcome(stage, code, confinement, **settings))

    play(folder, scenario)
    return found[0]


@contextmanager
def neighbour(uid: int | None = None) -> Generator[int]:
    """A process of the host, with a secret in its environment."""
    process = subprocess.Popen(["/bin/sleep", "60"], env={"TOKEN": "secret"}, user=uid)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def names(levels: list[Confinement]) -> list[str]:
    return [f"{each.level.name}-{each.network}" for each in levels]


each_level = pytest.mark.parametrize("confinement", LEVELS, ids=names(LEVELS))
from_l2 = pytest.mark.parametrize("confinement", LEVELS[2:], ids=names(LEVELS[2:]))
from_l3 = pytest.mark.parametrize("confinement", LEVELS[3:], ids=names(LEVELS[3:]))
