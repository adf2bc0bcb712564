from collections.abc import Iterator

import pytest
from store_samples import Clock, Store

from towline_controlplane.store.database import Database


@pytest.fixture
def url(database_url: str) -> str:
    """An empty migrated database of each kind that the store supports."""
    return database_url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    clock = Clock()
    store = Store(Database.open(url, clock=clock), clock)
    yield store
    store.close()
