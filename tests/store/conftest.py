import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import SharedPostgres
from store_samples import Clock, Store

from towline_controlplane.store.database import Database
from towline_migrations import upgrade


def migrate(url: str) -> None:
    upgrade(url)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "towline.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(migrated: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(migrated, tmp_path / 'towline.db')}"


@pytest.fixture
def postgres_url(postgres: SharedPostgres) -> Iterator[str]:
    name = postgres.create_database(postgres.template(migrate))
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty migrated database of each kind that the store supports."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    clock = Clock()
    store = Store(Database.open(url, clock=clock), clock)
    yield store
    store.close()
