import json
import multiprocessing
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from postgres_server import SharedPostgres

import towline_migrations
from towline_controlplane import migrate
from towline_controlplane.store import tables
from towline_migrations import CannotMigrate, downgrade, upgrade

NEWEST = "0016"
SCHEMA = {
    "columns": "SELECT table_name, column_name, data_type, is_nullable, collation_name"
    " FROM information_schema.columns WHERE table_schema = 'public'",
    "constraints": "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
}


@pytest.fixture
def empty(postgres: SharedPostgres) -> Iterator[str]:
    """The name of a database without a table."""
    name = postgres.create_database()
    yield name
    postgres.drop_database(name)


def schema(postgres: SharedPostgres, name: str) -> dict[str, list[tuple[Any, ...]]]:
    found = {kind: postgres.fetch(query, database=name) for kind, query in SCHEMA.items()}
    return {kind: sorted(row for row in rows if "alembic_version" not in str(row)) for kind, rows in found.items()}


def test_the_migrated_schema_is_that_of_the_tables(postgres: SharedPostgres, empty: str) -> None:
    created = postgres.create_database()
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(postgres.url(created)), poolclass=sqlalchemy.NullPool
    )
    tables.metadata.create_all(engine)
    assert upgrade(postgres.url(empty)) == NEWEST
    assert schema(postgres, empty) == schema(postgres, created)
    postgres.drop_database(created)


def test_texts_are_in_the_order_of_their_bytes(postgres: SharedPostgres, postgres_template: str) -> None:
    collations = {row[4] for row in schema(postgres, postgres_template)["columns"] if row[2] == "text"}
    assert collations == {"C"}


def test_an_upgrade_twice_is_one(postgres: SharedPostgres, empty: str) -> None:
    upgrade(postgres.url(empty))
    before = schema(postgres, empty)
    postgres.fetch("INSERT INTO queues (id, labels) VALUES ('q', '{}')", database=empty)
    assert upgrade(postgres.url(empty)) == NEWEST
    assert schema(postgres, empty) == before
    assert postgres.fetch("SELECT id FROM queues", database=empty) == [("q",)]


def test_a_downgrade_takes_everything_back_and_an_upgrade_brings_it_again(postgres: SharedPostgres, empty: str) -> None:
    upgrade(postgres.url(empty))
    before = schema(postgres, empty)
    assert downgrade(postgres.url(empty), "base") == "base"
    assert schema(postgres, empty)["columns"] == []
    upgrade(postgres.url(empty))
    assert schema(postgres, empty) == before


def test_a_failed_upgrade_leaves_nothing_behind(postgres: SharedPostgres, empty: str) -> None:
    postgres.fetch("CREATE TABLE log_chunks (in_the_way text)", database=empty)
    with pytest.raises(CannotMigrate, match="log_chunks"):
        upgrade(postgres.url(empty))
    assert [row[0] for row in schema(postgres, empty)["columns"]] == ["log_chunks"]


def test_of_several_upgrades_at_once_one_migrates_and_all_succeed(postgres: SharedPostgres, empty: str) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(upgrade, [postgres.url(empty)] * 6, chunksize=1) == [NEWEST] * 6


def test_a_table_in_use_is_waited_for_in_short_tries(
    postgres: SharedPostgres, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(postgres.url(empty))
    with psycopg.connect(postgres.url(empty)) as reader:
        reader.execute("SELECT * FROM queues")
        tries: list[float] = []

        def sleep(seconds: float) -> None:
            tries.append(seconds)
            if len(tries) == 2:
                reader.rollback()

        monkeypatch.setattr(towline_migrations, "_TABLE_LOCK_MS", 10)
        monkeypatch.setattr(towline_migrations.time, "sleep", sleep)
        assert downgrade(postgres.url(empty), "base") == "base"
        assert len(tries) == 2


def test_another_migration_is_waited_for_only_so_long(
    postgres: SharedPostgres, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(towline_migrations, "_LOCK_WAIT_SECONDS", 0.01)
    with psycopg.connect(postgres.url(empty)) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [towline_migrations._LOCK_KEY])  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(CannotMigrate, match="lock timeout"):
            upgrade(postgres.url(empty))
    assert upgrade(postgres.url(empty)) == NEWEST


def test_a_database_of_a_later_release_is_refused(postgres: SharedPostgres, empty: str) -> None:
    upgrade(postgres.url(empty))
    postgres.fetch("UPDATE alembic_version SET version_num = '9999'", database=empty)
    with pytest.raises(CannotMigrate, match=r"another release.*9999"):
        upgrade(postgres.url(empty))


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://towline:pa-ss-word@127.0.0.1:1/name", CannotMigrate),
        ("postgresql://towline:pa-ss-word@[host/name", ValueError),
        ("mysql://towline:pa-ss-word@host/name", ValueError),
    ],
)
def test_what_is_not_there_is_refused_without_showing_its_password(url: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        upgrade(url)
    told: BaseException | None = caught.value
    while told is not None:
        assert "pa-ss-word" not in f"{told!r}"
        told = told.__cause__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], f"the database is at revision {NEWEST}\n"), (["--output", "json"], {"revision": NEWEST})],
)
def test_command(
    database_url: str,
    arguments: list[str],
    said: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("TOWLINE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "argv", ["migrate", *arguments])
    assert migrate.main() == 0
    output = capsys.readouterr().out
    assert (json.loads(output) if arguments else output) == said


def test_command_says_why_it_cannot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/name")
    monkeypatch.setattr(sys, "argv", ["migrate"])
    assert migrate.main() == 6
    [line] = capsys.readouterr().err.splitlines()
    assert "Connection refused" in line
