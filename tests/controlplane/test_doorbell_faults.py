"""What a server that fails does to rings: they come late, by the poll, and cross again once it is back (F6, I17)."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import server_keeper
from doorbell_replicas import QUICK, Replica, heard, passes, replica, replicas
from postgres_server import PostgresServer
from structlog.testing import capture_logs
from valkey_server import PASSWORD, ValkeyServer

from towline_controlplane.bus import queue_topic, run_topic
from towline_controlplane.redis_wire import RedisWire
from towline_controlplane.relay import Wire
from towline_controlplane.store.notifications import PostgresWire

Fault = Callable[[ValkeyServer, Replica], Awaitable[None]]
RUN, QUEUE = run_topic("r"), queue_topic("q")


async def restart(server: ValkeyServer, _: Replica) -> None:
    await asyncio.to_thread(server.restart)


async def freeze_until_noticed(server: ValkeyServer, far: Replica) -> None:
    await asyncio.to_thread(server.freeze)
    await far.health.is_down()
    server.thaw()


async def cut_connections(server: ValkeyServer, _: Replica) -> None:
    for kind in ("pubsub", "normal"):
        await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", kind)


@pytest.mark.parametrize("fault", [restart, freeze_until_noticed, cut_connections])
def test_after_a_fault_rings_cross_again_and_whoever_waits_looks(valkey: ValkeyServer, fault: Fault) -> None:
    async def scenario() -> None:
        async with replicas(lambda: RedisWire(valkey.url), QUICK) as (near, far):
            async with far.doorbell.listen([RUN]) as watcher, far.doorbell.listen([], [QUEUE]) as puller:
                since = len(far.health.changes)
                await fault(valkey, far)
                await far.health.was_down(since)
                await near.health.is_up()
                assert [await heard(watcher), await heard(puller)] == [True, True]
            await crosses(near, far)

    asyncio.run(scenario())


def test_while_it_is_gone_ringing_wakes_who_is_here(valkey: ValkeyServer) -> None:
    async def scenario() -> None:
        async with replicas(lambda: RedisWire(valkey.url), QUICK) as (near, far):
            await asyncio.to_thread(valkey.stop)
            await near.health.is_down()
            await rings_at_home(near)
            await asyncio.to_thread(valkey.start)
            await near.health.is_up()
            await far.health.is_up()
            await crosses(near, far)

    asyncio.run(scenario())


def test_emptying_it_is_no_fault(valkey: ValkeyServer) -> None:
    async def scenario() -> None:
        async with replicas(lambda: RedisWire(valkey.url)) as (near, far):
            await asyncio.to_thread(valkey.ask, "FLUSHALL")
            await crosses(near, far)
            assert near.health.changes == [True]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "url",
    [
        "redis://:wrong-secret@127.0.0.1:{port}",
        "redis://somebody:wrong-secret@127.0.0.1:{port}",
        "redis://:wrong-secret@127.0.0.1:{free_port}",
        "redis://:wrong/secret@127.0.0.1:{port}",
        "redis://:wrong-secret@nowhere.invalid",
        "wrong-secret",
    ],
)
def test_a_wrong_setting_is_said_once_and_without_the_secret(valkey: ValkeyServer, url: str) -> None:
    async def scenario() -> None:
        wire = CountingWire(RedisWire(url.format(port=valkey.port, free_port=server_keeper.free_port())))
        async with replica(wire, QUICK) as alone:
            await alone.health.is_down()
            await wire.tried(3)
            await rings_at_home(alone)
            assert alone.health.changes == [False]

    with capture_logs() as lines:
        asyncio.run(scenario())
    (line,) = lines
    assert (line["log_level"], line["wire"]) == ("warning", "redis")
    assert "secret" not in str(line)
    assert line["reason"]


def test_a_password_is_not_in_what_is_logged(valkey: ValkeyServer) -> None:
    async def scenario() -> None:
        async with replicas(lambda: RedisWire(valkey.url), QUICK) as (near, _):
            await asyncio.to_thread(valkey.stop)
            await near.health.is_down()

    with capture_logs() as lines:
        asyncio.run(scenario())
    assert [line["log_level"] for line in lines].count("warning") >= 1
    assert PASSWORD not in str(lines)


def test_rings_cross_again_after_the_database_has_restarted(private_postgres: PostgresServer) -> None:
    async def scenario() -> None:
        async with replicas(lambda: PostgresWire(private_postgres.tcp_url()), QUICK) as (near, far):
            async with far.doorbell.listen([RUN]) as watcher:
                since = len(far.health.changes)
                await asyncio.to_thread(private_postgres.restart, "immediate")
                await far.health.was_down(since)
                await near.health.is_up()
                assert await heard(watcher)
            await crosses(near, far)
            since = len(far.health.changes)
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            await asyncio.to_thread(private_postgres.fetch, ended, "towline-doorbell")
            await far.health.was_down(since)
            await near.health.is_up()
            await crosses(near, far)

    asyncio.run(scenario())


def test_a_database_that_refuses_is_said_without_the_secret(private_postgres: PostgresServer) -> None:
    url = f"postgresql://towline:wrong-secret@127.0.0.1:{private_postgres.port}/postgres"

    async def scenario() -> None:
        async with replica(PostgresWire(url), QUICK) as alone:
            await alone.health.is_down()

    with capture_logs() as lines:
        asyncio.run(scenario())
    assert "password authentication failed" in lines[0]["reason"]
    assert "wrong-secret" not in str(lines)


async def crosses(near: Replica, far: Replica) -> None:
    for one, other in ((near, far), (far, near)):
        async with other.doorbell.listen([], [QUEUE]) as bell:
            one.doorbell.ring_in_turn({QUEUE: 1})
            assert await heard(bell)
        await passes(one, other)


async def rings_at_home(replica: Replica) -> None:
    async with replica.doorbell.listen([RUN], [QUEUE]) as bell:
        replica.doorbell.ring([RUN])
        assert await bell.wait(0)
        replica.doorbell.ring_in_turn({QUEUE: 1})
        assert await bell.wait(0)


class CountingWire:
    """Lets a test wait for attempts."""

    def __init__(self, wire: Wire) -> None:
        self.name = wire.name
        self.most_bytes = wire.most_bytes
        self._wire = wire
        self._attempts: asyncio.Queue[None] = asyncio.Queue()

    def connect(self):
        self._attempts.put_nowait(None)
        return self._wire.connect()

    async def tried(self, times: int) -> None:
        for _ in range(times):
            await asyncio.wait_for(self._attempts.get(), 30)
