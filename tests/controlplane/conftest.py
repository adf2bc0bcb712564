"""Plays a scenario in a control plane of its own, on each kind of database."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_server import SharedPostgres
from rig import Scenario, control_plane


@pytest.fixture
def play(tmp_path: Path, database_url: str) -> Callable[[Scenario], None]:
    async def in_control_plane(scenario: Scenario) -> None:
        async with control_plane(tmp_path, database_url) as rig:
            await scenario(rig)

    return lambda scenario: asyncio.run(in_control_plane(scenario))


@pytest.fixture(params=["sqlite", "postgres"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Plays each scenario of a property in an empty database; what it plants need not keep the invariants."""
    played = itertools.count()

    def empty_database() -> tuple[Path, str]:
        folder = tmp_path / str(next(played))
        folder.mkdir()
        if request.param == "sqlite":
            return folder, ""
        server: SharedPostgres = request.getfixturevalue("postgres")
        name: str = request.getfixturevalue("postgres_database")
        server.empty_database(name)
        return folder, server.url(name)

    async def in_control_plane(scenario: Scenario) -> None:
        async with control_plane(*empty_database(), audited=False) as rig:
            await scenario(rig)

    return lambda scenario: asyncio.run(in_control_plane(scenario))
