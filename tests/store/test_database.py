import asyncio
import threading
from dataclasses import replace

import pytest
from sqlalchemy import insert, select, update
from store_samples import Store, a_run, add_run

from towline_controlplane.requirements import Requirements
from towline_controlplane.store import queues, runs, tables
from towline_controlplane.store.database import Database, Transaction

WAIT = 30.0


def queue_ids(tx: Transaction) -> list[str]:
    return sorted(queues.all_queues(tx))


def test_a_write_returns_the_result_of_its_work(store: Store) -> None:
    assert store.write(lambda tx: tx.now) == 1_000_000


def test_the_time_of_a_transaction_is_read_once(store: Store) -> None:
    def work(tx: Transaction) -> tuple[int, int]:
        before = tx.now
        store.clock.now += 500
        return before, tx.now

    assert store.write(work) == (1_000_000, 1_000_000)
    assert store.read(lambda tx: tx.now) == 1_000_500


def test_the_clock_of_the_database_is_in_microseconds(url: str) -> None:
    async def scenario() -> None:
        database = Database.open(url)
        first = await database.write(lambda tx: tx.now)
        second = await database.read(lambda tx: tx.now)
        await database.close()
        assert 1_600_000_000_000_000 < first <= second < 9_000_000_000_000_000

    asyncio.run(scenario())


def test_what_was_written_is_there_after_a_restart(url: str) -> None:
    async def scenario() -> None:
        database = Database.open(url)
        await database.write(lambda tx: queues.ensure_queues(tx, {"q": Requirements()}))
        await database.close()
        again = Database.open(url)
        assert await again.read(queue_ids) == ["q"]
        await again.close()

    asyncio.run(scenario())


def test_an_exception_rolls_back_everything_and_is_raised(store: Store) -> None:
    def work(tx: Transaction) -> None:
        queues.ensure_queues(tx, {"through SQLAlchemy": Requirements()})
        add_run(tx)
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        store.write(work)
    assert store.read(queue_ids) == []
    assert store.read(runs.get_run, "run-1", None) is None
    store.write(queues.ensure_queues, {"next": Requirements()})
    assert store.read(queue_ids) == ["next"]


def test_a_failed_statement_rolls_back_what_came_before_it(store: Store) -> None:
    def work(tx: Transaction) -> None:
        add_run(tx)
        runs.insert_runs(tx, [a_run()], (), ())

    with pytest.raises(Exception, match=r"(?i)unique"):
        store.write(work)
    assert store.read(runs.get_run, "run-1", None) is None


def test_writers_queue_and_no_update_is_lost(store: Store) -> None:
    def increment(tx: Transaction) -> None:
        [run] = runs.load_runs(tx, runs.lock_runs(tx, ["run-1"]))
        runs.save_changes(tx, runs=[replace(run, event_count=run.event_count + 1)])

    async def scenario() -> None:
        await asyncio.gather(*(store.database.write(increment) for _ in range(40)))

    store.write(add_run)
    store.runner.run(scenario())
    run = store.read(runs.get_run, "run-1", None)
    assert run is not None
    assert run.event_count == 40


def test_a_reader_sees_one_snapshot_while_others_write(store: Store) -> None:
    has_read, has_written = threading.Event(), threading.Event()

    def read_twice(tx: Transaction) -> tuple[list[str], list[str]]:
        before = queue_ids(tx)
        has_read.set()
        assert has_written.wait(WAIT)
        return before, queue_ids(tx)

    async def scenario() -> None:
        reading = asyncio.ensure_future(store.database.read(read_twice))
        await asyncio.to_thread(has_read.wait, WAIT)
        await store.database.write(lambda tx: queues.ensure_queues(tx, {"late": Requirements()}))
        has_written.set()
        assert await reading == ([], [])
        assert await store.database.read(queue_ids) == ["late"]

    store.runner.run(scenario())


def test_readers_see_nothing_of_a_transaction_under_way_and_do_not_wait_for_it(store: Store) -> None:
    has_written, has_read = threading.Event(), threading.Event()

    def write_slowly(tx: Transaction) -> None:
        queues.ensure_queues(tx, {"q": Requirements()})
        has_written.set()
        assert has_read.wait(WAIT)

    async def scenario() -> None:
        writing = asyncio.ensure_future(store.database.write(write_slowly))
        await asyncio.to_thread(has_written.wait, WAIT)
        assert await store.database.read(queue_ids) == []
        has_read.set()
        await writing
        assert await store.database.read(queue_ids) == ["q"]

    store.runner.run(scenario())


def test_several_readers_read_at_the_same_time(store: Store) -> None:
    together = threading.Barrier(3, timeout=WAIT)

    async def scenario() -> None:
        await asyncio.gather(*(store.database.read(lambda _: together.wait()) for _ in range(3)))

    store.runner.run(scenario())


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(Exception, match=r"read-?only"):
        store.read(queues.ensure_queues, {"q": Requirements()})
    assert store.read(queue_ids) == []


def test_core_and_driver_share_one_transaction(store: Store) -> None:
    def work(tx: Transaction) -> str:
        add_run(tx)
        tx.connection.execute(update(tables.runs).values(owner_id="other"))
        return runs.load_runs(tx, ["run-1"])[0].owner_id

    assert store.write(work) == "other"


def test_close_waits_for_what_is_under_way(url: str) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        tx.connection.execute(insert(tables.queues).values(id="q", labels="{}"))
        started.set()
        assert go_on.wait(WAIT)

    async def scenario() -> None:
        database = Database.open(url)
        writing = asyncio.ensure_future(database.write(slow))
        await asyncio.to_thread(started.wait, WAIT)
        closing = asyncio.ensure_future(database.close())
        go_on.set()
        await asyncio.gather(writing, closing)
        again = Database.open(url)
        assert await again.read(lambda tx: tx.connection.execute(select(tables.queues.c.id)).scalars().all()) == ["q"]
        await again.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["sqlite://", "mysql://user:secret@host/name"])
def test_a_url_of_another_kind_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="not of the form") as caught:
        Database.open(url)
    assert "secret" not in str(caught.value)
