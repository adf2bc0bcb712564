import multiprocessing
import sqlite3
import stat
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from towline_controlplane.store import tables
from towline_migrations import CannotMigrate, downgrade, upgrade

NEWEST = "0016"


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def schema(path: Path) -> dict[str, list[str]]:
    """The clauses of the statements that create a schema, by name; the order of constraints means nothing."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: sorted(clauses(sql)) for name, sql in rows if name != "alembic_version"}


def clauses(sql: str) -> list[str]:
    """What stands between the commas that are in no further parentheses; an added column comes behind constraints."""
    words = " ".join(sql.replace('"', "").replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split()).split(
        " "
    )
    depth, parts = 0, [""]
    for word in words:
        depth += (word == "(") - (word == ")")
        outermost = (word, depth) in (("(", 1), (")", 0), (",", 1))
        if outermost:
            parts.append("")
        else:
            parts[-1] += f" {word}"
    return parts


def revision(path: Path) -> str | None:
    connection = sqlite3.connect(path)
    [[found]] = connection.execute("SELECT max(version_num) FROM alembic_version").fetchall()
    connection.close()
    return found


def test_the_migrated_schema_is_that_of_the_tables(tmp_path: Path) -> None:
    upgrade(url_of(tmp_path / "migrated.db"))
    engine = sqlalchemy.create_engine(url_of(tmp_path / "migrated.db"), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []


def test_checks_keys_and_partial_indexes_are_the_same_too(tmp_path: Path) -> None:
    upgrade(url_of(tmp_path / "migrated.db"))
    engine = sqlalchemy.create_engine(url_of(tmp_path / "created.db"), poolclass=sqlalchemy.NullPool)
    tables.metadata.create_all(engine)
    assert schema(tmp_path / "migrated.db") == schema(tmp_path / "created.db")


def test_an_upgrade_twice_is_one(tmp_path: Path) -> None:
    path = tmp_path / "towline.db"
    upgrade(url_of(path))
    before = schema(path)
    upgrade(url_of(path))
    assert schema(path) == before
    assert revision(path) == NEWEST


def test_a_downgrade_takes_everything_back_and_an_upgrade_brings_it_again(tmp_path: Path) -> None:
    path = tmp_path / "towline.db"
    upgrade(url_of(path))
    before = schema(path)
    downgrade(url_of(path), "base")
    assert schema(path) == {}
    upgrade(url_of(path))
    assert schema(path) == before


def test_an_upgrade_keeps_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "towline.db"
    upgrade(url_of(path))
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO queues (id, labels) VALUES ('q', '{}')")
    connection.commit()
    upgrade(url_of(path))
    assert connection.execute("SELECT id FROM queues").fetchall() == [("q",)]
    connection.close()


def test_a_failed_upgrade_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "towline.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE log_chunks (in_the_way)")
    with pytest.raises(CannotMigrate, match="log_chunks already exists"):
        upgrade(url_of(path))
    assert schema(path).keys() == {"log_chunks"}
    connection.execute("DROP TABLE log_chunks")
    connection.close()
    upgrade(url_of(path))
    assert revision(path) == NEWEST


def test_of_several_upgrades_at_once_one_migrates_and_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "towline.db"
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(4) as pool:
        pool.map(upgrade, [url_of(path)] * 8, chunksize=1)
    assert revision(path) == NEWEST


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "towline.db"
    upgrade(url_of(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="not of the form"):
        upgrade("mysql://user:secret@host/name")
