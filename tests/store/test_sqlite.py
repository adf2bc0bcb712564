import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError
from store_samples import add_run

from towline_controlplane.errors import Unavailable
from towline_controlplane.requirements import Requirements
from towline_controlplane.store import queues, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.sqlite import DatabaseInUse

WRITER = """
import asyncio, itertools, sys
from store_samples import a_run, a_step, an_event
from towline_controlplane.store import runs
from towline_controlplane.store.database import Database

async def main():
    database = Database.open(sys.argv[1])
    for number in itertools.count():
        run_id = f"run-{number}"
        steps = [a_step(run_id, node_id) for node_id in "abcdefgh"]
        events = [an_event(run_id, sequence) for sequence in range(1, 9)]
        await database.write(lambda tx: runs.insert_runs(tx, [a_run(run_id, open_steps=8)], steps, events))
        print(number, flush=True)

asyncio.run(main())
"""


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def start_writer(url: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True, env=environment)


def acknowledge(writer: subprocess.Popen[str], number: int) -> None:
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < number:
        pass


def kill(writer: subprocess.Popen[str]) -> int:
    """Kills the writer at any statement; returns the number of the last run that it had acknowledged."""
    writer.send_signal(signal.SIGKILL)
    assert writer.stdout is not None
    last = writer.stdout.read().split()[-1:]
    writer.stdout.close()
    writer.wait(30)
    return int(last[0]) if last else 0


@pytest.mark.parametrize("written", [1, 20, 60])
def test_killed_while_it_writes_it_loses_nothing_acknowledged_and_keeps_nothing_half(
    sqlite_url: str, written: int
) -> None:
    writer = start_writer(sqlite_url)
    acknowledge(writer, written)
    last = max(written, kill(writer))

    def audit(tx: Transaction) -> tuple[str, int, list[str]]:
        [[verdict]] = tx.driver.execute("PRAGMA integrity_check")
        [[count]] = tx.driver.execute("SELECT count(*) FROM runs")
        half = tx.driver.execute(
            "SELECT id FROM runs r WHERE (SELECT count(*) FROM steps WHERE run_id = r.id) <> 8"
            " OR (SELECT count(*) FROM events WHERE run_id = r.id) <> 8"
            " OR NOT EXISTS (SELECT 1 FROM run_inputs WHERE run_id = r.id)"
        )
        return verdict, count, [run_id for (run_id,) in half]

    async def scenario() -> None:
        database = Database.open(sqlite_url)
        verdict, count, half = await database.read(audit)
        assert (verdict, half) == ("ok", [])
        assert last + 1 <= count <= last + 2
        await database.write(lambda tx: add_run(tx, "run-new"))
        await database.close()

    asyncio.run(scenario())


def test_a_second_control_plane_on_the_file_is_refused_until_the_first_is_gone(sqlite_url: str) -> None:
    writer = start_writer(sqlite_url)
    acknowledge(writer, 1)
    with pytest.raises(DatabaseInUse, match=f"process {writer.pid} holds .*one control plane"):
        Database.open(sqlite_url)
    kill(writer)
    asyncio.run(Database.open(sqlite_url).close())


def test_an_open_database_is_refused_in_the_same_process_too(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    with pytest.raises(DatabaseInUse, match=str(os.getpid())):
        Database.open(sqlite_url)
    asyncio.run(database.close())


def test_a_failed_open_gives_the_lock_back(sqlite_url: str) -> None:
    path = path_of(sqlite_url)
    content = path.read_bytes()
    path.write_bytes(b"this is no database, for sure, and long enough to be looked at" * 10)
    with pytest.raises(DatabaseError, match="not a database"):
        Database.open(sqlite_url)
    path.write_bytes(content)
    asyncio.run(Database.open(sqlite_url).close())


def test_a_database_that_was_never_migrated_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not been migrated"):
        Database.open(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_commit_is_on_the_disk_before_it_is_answered(sqlite_url: str) -> None:
    async def scenario() -> None:
        database = Database.open(sqlite_url)
        assert await database.write(pragmas) == ("wal", 2, 1)
        await database.close()

    def pragmas(tx: Transaction) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return tuple(tx.driver.execute(f"PRAGMA {name}").fetchone()[0] for name in names)

    asyncio.run(scenario())


def test_a_foreign_writer_is_waited_for(sqlite_url: str) -> None:
    began = threading.Event()

    def clock() -> int:
        began.set()
        return 1

    async def scenario() -> None:
        database = Database.open(sqlite_url, clock=clock)
        foreign.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(database.write(lambda tx: queues.ensure_queues(tx, {"q": Requirements()})))
        assert not await asyncio.to_thread(began.wait, 0.3)
        foreign.execute("COMMIT")
        await writing
        assert await database.read(queues.all_queues) == {"q": Requirements()}
        await database.close()

    foreign = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    asyncio.run(scenario())
    foreign.close()


def test_a_file_that_stays_locked_is_unavailable_and_then_usable_again(sqlite_url: str) -> None:
    async def scenario() -> None:
        database = Database.open(sqlite_url)
        await database.write(lambda tx: tx.driver.execute("PRAGMA busy_timeout = 1"))
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="SQLITE_BUSY"):
            await database.write(queues.all_queues)
        foreign.execute("COMMIT")
        assert await database.write(queues.all_queues) == {}
        await database.close()

    foreign = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    asyncio.run(scenario())
    foreign.close()


@pytest.mark.parametrize("through_core", [True, False])
def test_a_full_disk_is_unavailable_and_then_usable_again(sqlite_url: str, through_core: bool) -> None:
    def fill(tx: Transaction) -> None:
        if through_core:
            queues.ensure_queues(tx, {f"q{number}": Requirements({"label": "x" * 9_000}) for number in range(200)})
        else:
            add_run(tx, input="x" * 2_000_000)

    async def scenario() -> None:
        database = Database.open(sqlite_url)
        [[pages]] = await database.read(lambda tx: tx.driver.execute("PRAGMA page_count").fetchall())
        await database.write(lambda tx: tx.driver.execute(f"PRAGMA max_page_count = {pages + 20}").fetchall())
        with pytest.raises(Unavailable, match="full"):
            await database.write(fill)
        await database.write(lambda tx: tx.driver.execute("PRAGMA max_page_count = 1000000").fetchall())
        await database.write(fill)
        await database.close()

    asyncio.run(scenario())


def test_ids_and_texts_of_any_kind_are_kept(sqlite_url: str) -> None:
    odd = "Ünïcödé 'quote' \"double\" ☃ \U0001f600 [0]"

    async def scenario() -> None:
        database = Database.open(sqlite_url)
        await database.write(lambda tx: add_run(tx, odd))
        assert list(await database.read(lambda tx: runs.lock_runs(tx, [odd, "none"]))) == [odd]
        assert [step.run_id for step in await database.read(lambda tx: runs.load_steps(tx, [(odd, "a")]))] == [odd]
        await database.close()

    asyncio.run(scenario())


def test_a_misuse_of_the_driver_is_told_as_it_is(sqlite_url: str) -> None:
    async def misuse() -> None:
        database = Database.open(sqlite_url)
        try:
            await database.read(lambda tx: tx.driver.execute("SELECT ?", ()))
        finally:
            await database.close()

    with pytest.raises(sqlite3.ProgrammingError, match="binding"):
        asyncio.run(misuse())
