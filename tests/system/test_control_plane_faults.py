"""Control planes, gateways and their servers that go away under load: clients repeat, agents go on, nothing is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from load import Load
from postgres_server import PostgresServer
from processes import Installation, Rest, installed
from side_file import SideFile, eventually
from valkey_server import ValkeyServer

Fault = Callable[[Installation, Load], Awaitable[None]]


def new_database(server: PostgresServer) -> str:
    """Returns the URL of an empty database."""
    return server.tcp_url(server.create_database())


def under_load(folder: Path, fault: Fault, *, database: str = "", redis: str = "", replicas: int = 1) -> None:
    """Does something to an installation while runs are started and executed."""
    side = SideFile(folder)

    async def scenario() -> None:
        async with installed(
            folder,
            replicas=replicas,
            agents=replicas,
            DATABASE_URL=database,
            REDIS_URL=redis,
            TOWLINE_OFFER_SECONDS="2",
        ) as installation:
            load = Load(Rest(installation.http), side)
            load.prepare()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.go_on())
                await load.executed(2)
                await fault(installation, load)
            await load.check()

    asyncio.run(scenario())


def test_a_control_plane_that_is_killed_again_and_again(tmp_path: Path) -> None:
    async def fault(installation: Installation, load: Load) -> None:
        for _ in range(2):
            await installation.kill("controlplane")
            await installation.restart("controlplane")
            await load.executed(2)

    under_load(tmp_path, fault)


def test_replicas_that_start_at_once_on_an_empty_database_are_killed_and_stopped_in_turn(
    tmp_path: Path, private_postgres: PostgresServer
) -> None:
    async def fault(installation: Installation, load: Load) -> None:
        await installation.kill("controlplane")
        await load.executed(4)
        await installation.restart("controlplane")
        await installation.kill("controlplane-2")
        await load.executed(4)
        await installation.restart("controlplane-2")
        installation.stop("controlplane", supervisor=False)
        await load.executed(4)
        installation.go_on("controlplane")

    under_load(tmp_path, fault, database=new_database(private_postgres), replicas=2)


async def restart_fast(server: PostgresServer, installation: Installation) -> None:
    await asyncio.to_thread(server.restart, "fast")


async def crash(server: PostgresServer, installation: Installation) -> None:
    await asyncio.to_thread(server.restart, "immediate")


async def be_away(server: PostgresServer, installation: Installation) -> None:
    """Stays away until users have been told so."""
    await asyncio.to_thread(server.stop, "immediate")

    def refused() -> bool:
        answer: Any = Rest(installation.http).post("/auth/login", {"email": "a@example.com", "password": "12345678"})
        return answer["error"]["code"] in (503, 504)

    await eventually(refused)
    await asyncio.to_thread(server.start)


async def end_connections(server: PostgresServer, installation: Installation) -> None:
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname <> ''"
    for _ in range(5):
        await asyncio.to_thread(server.fetch, query)


def test_a_database_that_goes_away_in_every_way(tmp_path: Path, private_postgres: PostgresServer) -> None:
    async def fault(installation: Installation, load: Load) -> None:
        for break_it in (restart_fast, crash, end_connections, be_away):
            await break_it(private_postgres, installation)
            await load.executed(4)

    under_load(tmp_path, fault, database=new_database(private_postgres))


def test_redis_that_is_killed_frozen_and_emptied(
    tmp_path: Path, private_postgres: PostgresServer, valkey: ValkeyServer
) -> None:
    async def fault(installation: Installation, load: Load) -> None:
        for harm, mend in (
            (valkey.stop, valkey.start),
            (valkey.freeze, valkey.thaw),
            (lambda: valkey.ask("FLUSHALL"), lambda: None),
        ):
            await asyncio.to_thread(harm)
            await load.executed(3)
            await asyncio.to_thread(mend)

    under_load(tmp_path, fault, database=new_database(private_postgres), redis=valkey.url, replicas=2)


def test_a_gateway_that_is_killed_under_a_reader(tmp_path: Path) -> None:
    side = SideFile(tmp_path)

    async def scenario() -> None:
        async with installed(tmp_path) as installation:
            rest = Rest(installation.http)
            rest.sign_in()
            names = [f"s{number}" for number in range(3)]
            dag = {
                "nodes": [side.node(name, gated=True) for name in names],
                "edges": [{"from": "s0", "to": "s1"}, {"from": "s1", "to": "s2"}],
            }
            workflow = rest.post("/workflows", {"name": "watched", "dag": dag})
            run_id = rest.post(f"/workflows/{workflow['id']}/execute", {})["id"]
            seen: list[int] = []

            def read() -> None:
                """Reads on behind the last event that was seen, until the stream breaks or ends."""
                try:
                    seen.extend(int(event["sequence"]) for event in rest.events(run_id, after=rest.last_event_id))
                except (OSError, EOFError):
                    return

            for name in names:
                reading = asyncio.create_task(asyncio.to_thread(read))
                await side.begun(name)
                await eventually(lambda: seen)
                await installation.kill("gateway")
                await reading
                side.open(name)
                await installation.restart("gateway")
            await asyncio.to_thread(read)
            assert seen == list(range(1, len(seen) + 1))
            assert rest.get(f"/runs/{run_id}")["state"] == "SUCCEEDED"
            side.check(rest, run_id)
            assert len(list(rest.events(run_id))) == len(seen)

    asyncio.run(scenario())
