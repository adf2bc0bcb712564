"""Plays a scenario in a control plane of its own, on each kind of database."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Scenario, control_plane


@pytest.fixture
def play(tmp_path: Path, database_url: str) -> Callable[[Scenario], None]:
    async def in_control_plane(scenario: Scenario) -> None:
        async with control_plane(tmp_path, database_url) as rig:
            await scenario(rig)

    return lambda scenario: asyncio.run(in_control_plane(scenario))


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[Scenario], None]:
    """Plays each scenario of a property in a folder of its own; what it plants need not keep the invariants."""
    played = itertools.count()

    async def in_control_plane(scenario: Scenario) -> None:
        folder = tmp_path / str(next(played))
        folder.mkdir()
        async with control_plane(folder, audited=False) as rig:
            await scenario(rig)

    return lambda scenario: asyncio.run(in_control_plane(scenario))
