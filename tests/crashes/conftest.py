import asyncio
from collections.abc import Iterator

import pytest
from lives import Stage


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """An empty database of each kind, for control planes that come and go."""
    stage = Stage(database_url)
    yield stage
    asyncio.run(stage.database.close())
