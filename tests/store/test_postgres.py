"""What only a server can do to a store: refuse, restart, kill connections, and serve several control planes at once."""

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import psycopg
import pytest
import structlog
from postgres_server import PASSWORD, PostgresServer, SharedPostgres
from store_samples import a_step, add_run

from towline_controlplane.errors import Unavailable
from towline_controlplane.model import StepState
from towline_controlplane.requirements import Requirements
from towline_controlplane.store import leases, queues, run_lists, runs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.postgres import PostgresBackend
from towline_migrations import upgrade

WAIT = 30.0
TERMINATE_SELF = "SELECT pg_terminate_backend(pg_backend_pid())"


@asynccontextmanager
async def replicas(url: str, count: int) -> AsyncGenerator[list[Database]]:
    opened = [Database.open(url) for _ in range(count)]
    try:
        yield opened
    finally:
        await asyncio.gather(*(database.close() for database in opened))


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The errors that a transaction met, also those that were outrun by repeating it."""
    seen: list[BaseException] = []
    judge = PostgresBackend.may_repeat

    def may_repeat(backend: PostgresBackend, error: BaseException) -> bool:
        seen.append(error)
        return judge(backend, error)

    monkeypatch.setattr(PostgresBackend, "may_repeat", may_repeat)
    return seen


def state(code: str) -> Callable[[Transaction], object]:
    """Fails as if the server had this reason."""
    return lambda tx: tx.driver.execute(f"DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END $$")


class Failing:
    """Work that fails in a way the first `times`, and writes a queue for each time that it is tried."""

    def __init__(self, fail: Callable[[Transaction], object], times: int) -> None:
        self.fail = fail
        self.times = times
        self.tried = 0

    def __call__(self, tx: Transaction) -> int:
        self.tried += 1
        queues.ensure_queues(tx, {f"try-{self.tried}": Requirements()})
        if self.tried <= self.times:
            self.fail(tx)
        return self.tried


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_a_transaction_that_lost_against_another_is_repeated(postgres_url: str, code: str) -> None:
    async def scenario() -> None:
        async with replicas(postgres_url, 1) as [database]:
            assert await database.write(Failing(state(code), times=3)) == 4
            assert set(await database.read(queues.all_queues)) == {"try-4"}
            with pytest.raises(Unavailable, match="on purpose"):
                await database.write(Failing(state(code), times=100))

    asyncio.run(scenario())


def test_a_migration_beside_it_costs_nothing(
    postgres: SharedPostgres, postgres_template: str, errors: list[BaseException]
) -> None:
    name = postgres.create_database(postgres_template)
    postgres_url = postgres.url(name)

    async def scenario() -> None:
        async with replicas(postgres_url, 1) as [database]:
            await database.write(lambda tx: add_run(tx, "run-1"))
            await database.write(lambda tx: runs.load_runs(tx, ["run-1"]))
            with psycopg.connect(postgres_url, autocommit=True) as migrating:
                migrating.execute('ALTER TABLE runs ALTER COLUMN owner_id TYPE varchar(99) COLLATE "POSIX"')
            [run] = await database.write(lambda tx: runs.load_runs(tx, ["run-1"]))
            assert run.id == "run-1"

    asyncio.run(scenario())
    postgres.drop_database(name)
    assert [str(error) for error in errors] == ["cached plan must not change result type"]


def test_two_that_wait_for_each_other_both_get_through(postgres_url: str, errors: list[BaseException]) -> None:
    both_hold_one = threading.Barrier(2, timeout=WAIT)

    def lock_both(first: str, second: str) -> Callable[[Transaction], None]:
        tried: list[str] = []

        def work(tx: Transaction) -> None:
            locked = runs.lock_runs(tx, [first])
            tried.append(first)
            if len(tried) == 1:
                both_hold_one.wait()
            locked |= runs.lock_runs(tx, [second])
            both = runs.load_runs(tx, locked)
            runs.save_changes(tx, [replace(run, event_count=run.event_count + 1) for run in both])

        return work

    async def scenario() -> None:
        async with replicas(postgres_url, 2) as [one, other]:
            for run_id in ("run-1", "run-2"):
                await one.write(lambda tx, run_id=run_id: add_run(tx, run_id))
            await asyncio.gather(one.write(lock_both("run-1", "run-2")), other.write(lock_both("run-2", "run-1")))
            found = await one.write(lambda tx: runs.lock_runs(tx, ["run-1", "run-2"]))
            assert list(found.values()) == [2, 2]

    asyncio.run(scenario())
    assert [type(error) for error in errors] == [psycopg.errors.DeadlockDetected]


def test_a_connection_that_is_lost_before_the_commit_costs_nothing(postgres_url: str) -> None:
    async def scenario() -> None:
        async with replicas(postgres_url, 1) as [database]:
            kill = Failing(lambda tx: tx.driver.execute(TERMINATE_SELF), times=1)
            assert await database.write(kill) == 2
            assert set(await database.read(queues.all_queues)) == {"try-2"}
            with pytest.raises(Unavailable):
                await database.write(Failing(lambda tx: tx.driver.execute(TERMINATE_SELF), times=100))
            await database.write(lambda tx: queues.ensure_queues(tx, {"after": Requirements()}))
            assert set(await database.read(queues.all_queues)) == {"try-2", "after"}

    asyncio.run(scenario())


def test_idle_connections_that_were_ended_are_made_anew(
    postgres: SharedPostgres, postgres_database: str, postgres_url: str
) -> None:
    async def scenario() -> None:
        async with replicas(postgres_url, 1) as [database]:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            assert len(postgres.fetch(end, postgres_database)) >= 5
            await database.write(lambda tx: queues.ensure_queues(tx, {"q": Requirements()}))
            for _ in range(8):
                assert await database.read(queues.all_queues) == {"q": Requirements()}

    asyncio.run(scenario())


def test_a_connection_that_is_lost_during_the_commit_is_unavailable_and_not_repeated(
    postgres: SharedPostgres, postgres_template: str
) -> None:
    name = postgres.create_database(postgres_template)
    trap = """
        CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON queues DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION trap()"""
    work = Failing(lambda tx: None, times=0)

    async def scenario() -> None:
        async with replicas(postgres.url(name), 1) as [database]:
            postgres.fetch(trap, database=name)
            with pytest.raises(Unavailable):
                await database.write(work)
            assert await database.read(queues.all_queues) == {}

    asyncio.run(scenario())
    assert work.tried == 1
    postgres.drop_database(name)


def test_a_lock_that_is_not_to_be_had_is_unavailable_and_then_usable_again(postgres_url: str) -> None:
    held, done = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        runs.lock_runs(tx, ["run-1"])
        held.set()
        assert done.wait(WAIT)

    def impatient(tx: Transaction) -> object:
        tx.driver.execute("SET LOCAL lock_timeout = '20ms'")
        return runs.lock_runs(tx, ["run-1"])

    async def scenario() -> None:
        async with replicas(postgres_url, 2) as [one, other]:
            await one.write(add_run)
            holding = asyncio.ensure_future(one.write(hold))
            await asyncio.to_thread(held.wait, WAIT)
            with pytest.raises(Unavailable, match="lock timeout"):
                await other.write(impatient)
            done.set()
            await holding
            assert await other.write(impatient)

    asyncio.run(scenario())


def test_an_error_that_was_passed_over_is_not_committed_as_if_nothing_was(postgres_url: str) -> None:
    def careless(tx: Transaction) -> None:
        with suppress(psycopg.Error):
            tx.driver.execute("SELECT 1/0")

    async def scenario() -> None:
        async with replicas(postgres_url, 1) as [database]:
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                await database.write(careless)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "away"),
    [
        *((code, True) for code in ("08006", "53100", "53300", "57014", "57P01", "57P03", "58030", "25006", "55P03")),
        *((code, False) for code in ("22001", "23505", "42601", "42P01", "XX000", "25P02")),
    ],
)
def test_what_is_the_servers_fault_is_unavailable_and_what_is_ours_is_not(code: str, away: bool) -> None:
    backend = PostgresBackend("postgresql://nowhere/none")
    error = psycopg.errors.lookup(code)("some reason")
    assert isinstance(backend.translate(error), Unavailable) == away
    assert backend.translate(ValueError()).__class__ is ValueError


def test_each_step_is_claimed_by_one_of_several_control_planes(postgres_url: str, errors: list[BaseException]) -> None:
    wanted = {(f"run-{run}", f"n{node}") for run in range(12) for node in range(10)}
    claimed: list[tuple[str, str]] = []

    def claim(tx: Transaction) -> list[tuple[str, str]]:
        steps = runs.load_steps(tx, leases.lock_claimable(tx, ["queue-1", "queue-2"], 4).keys)
        found = [step for step in steps if leases.is_claimable(step, tx.now)]
        runs.save_changes(tx, steps=[replace(s, state=StepState.LEASED, agent_id="a") for s in found])
        return [(step.run_id, step.node_id) for step in found]

    async def work(database: Database) -> None:
        while len(claimed) < len(wanted):
            claimed.extend(await database.write(claim))

    async def scenario() -> None:
        async with replicas(postgres_url, 3) as databases:
            for run in range(12):
                steps = [a_step(f"run-{run}", f"n{n}", position=n, queue_id=f"queue-{n % 2 + 1}") for n in range(10)]
                await databases[0].write(lambda tx, run=run, steps=steps: add_run(tx, f"run-{run}", tuple(steps)))
            await asyncio.gather(*(work(database) for database in databases))

    asyncio.run(scenario())
    assert sorted(claimed) == sorted(wanted)
    assert errors == []


def test_claims_pass_over_what_another_has_locked_and_do_not_wait(postgres_url: str) -> None:
    held, done = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        runs.lock_runs(tx, ["run-1"])
        held.set()
        assert done.wait(WAIT)

    async def scenario() -> None:
        async with replicas(postgres_url, 2) as [one, other]:
            for run_id in ("run-1", "run-2"):
                await one.write(lambda tx, run_id=run_id: add_run(tx, run_id))
            holding = asyncio.ensure_future(one.write(hold))
            await asyncio.to_thread(held.wait, WAIT)
            found = await other.write(lambda tx: leases.lock_claimable(tx, ["queue-1"], 1))
            assert list(found.event_counts) == ["run-2"]
            done.set()
            await holding
            found = await other.write(lambda tx: leases.lock_claimable(tx, ["queue-1"], 1))
            assert list(found.event_counts) == ["run-1"]

    asyncio.run(scenario())


def test_completers_and_claimers_in_any_order_never_deadlock(postgres_url: str, errors: list[BaseException]) -> None:
    ids = [f"run-{n}" for n in range(8)]
    chance = random.Random(7)

    def complete(some: list[str]) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            locked = runs.load_runs(tx, runs.lock_runs(tx, some))
            changed = [replace(run, event_count=run.event_count + 1) for run in locked]
            steps = runs.load_steps(tx, [(run_id, node) for run_id in some for node in "ab"])
            runs.save_changes(tx, changed, [replace(step, epoch=step.epoch + 1) for step in reversed(steps)])

        return work

    def claim(tx: Transaction) -> None:
        for queue in chance.sample(["queue-1", "queue-2"], 2):
            found = runs.load_steps(tx, leases.lock_claimable(tx, [queue], 3).keys)
            runs.save_changes(tx, steps=[replace(step, epoch=step.epoch + 1) for step in found])

    async def scenario() -> None:
        async with replicas(postgres_url, 4) as databases:
            for run_id in ids:
                steps = (a_step(run_id, "a", queue_id="queue-1"), a_step(run_id, "b", queue_id="queue-2"))
                await databases[0].write(lambda tx, run_id=run_id, steps=steps: add_run(tx, run_id, steps))
            batches = [[chance.sample(ids, 5) for _ in range(25)] for _ in databases]

            async def work(database: Database, mine: list[list[str]]) -> None:
                for some in mine:
                    await database.write(complete(some))
                    await database.write(claim)

            await asyncio.gather(*(work(d, mine) for d, mine in zip(databases, batches, strict=True)))
            found = await databases[0].read(lambda tx: run_lists.list_runs(tx, run_lists.RunFilter(), None, 100))
            assert sum(run.event_count for run in found) == 4 * 25 * 5

    asyncio.run(scenario())
    assert errors == []


def test_a_crash_of_the_server_amid_load_loses_nothing_acknowledged(private_postgres: PostgresServer) -> None:
    url = private_postgres.url(private_postgres.create_database())
    upgrade(url)
    stored: list[str] = []
    refused: list[str] = []

    async def scenario() -> None:
        database = Database.open(url)
        stop, back, another = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def write(name: str) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                key = f"{name}-{number}"
                try:
                    await database.write(lambda tx, key=key: queues.ensure_queues(tx, {key: Requirements()}))
                    stored.append(key)
                    another.set()
                except Unavailable:
                    refused.append(key)
                    await back.wait()

        async def reached(count: int) -> None:
            while len(stored) < count:
                another.clear()
                await another.wait()

        writing = [asyncio.ensure_future(write(name)) for name in "abc"]
        await reached(50)
        await asyncio.to_thread(private_postgres.stop, "immediate")
        with pytest.raises(Unavailable):
            await database.read(queues.all_queues)
        await asyncio.to_thread(private_postgres.start)
        back.set()
        await reached(len(stored) + 50)
        stop.set()
        await asyncio.gather(*writing)
        found = await database.read(queues.all_queues)
        assert set(stored) <= set(found) <= {*stored, *refused}
        await database.close()

    asyncio.run(scenario())
    assert refused


def test_a_password_is_in_no_error_and_no_log(private_postgres: PostgresServer) -> None:
    right = private_postgres.tcp_url(private_postgres.create_database())
    wrong = right.replace(PASSWORD, "wrong-secret")
    malformed = "postgresql://towline:wrong-secret@[host/name"
    with structlog.testing.capture_logs() as logged:
        for url, kind in [(wrong, Unavailable), (malformed, ValueError)]:
            with pytest.raises(kind) as caught:
                Database.open(url)
            told: BaseException | None = caught.value
            while told is not None:
                assert "wrong-secret" not in f"{told!r} {told}"
                told = told.__cause__
    assert len(logged) == 1
    assert "password authentication failed" in str(logged)
    assert "wrong-secret" not in str(logged)
