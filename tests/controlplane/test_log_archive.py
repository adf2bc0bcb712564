"""Logs become objects, and whoever reads them notices nothing of it."""

import asyncio
import gzip
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rig import FakeAgent, Rig, Scenario, succeeded

from towline_controlplane import log_reader
from towline_controlplane.blobs import FolderBlobs
from towline_controlplane.errors import NotFound, Unavailable
from towline_controlplane.handouts import StepOffer
from towline_controlplane.log_archive import LogArchive
from towline_controlplane.log_status import LogCondition, LogStatus
from towline_controlplane.loops.log_archiving import LogArchiving
from towline_controlplane.loops.retention import Retention
from towline_controlplane.model import Usage
from towline_controlplane.services.log_streams import statuses
from towline_controlplane.store import log_archives, logs, runs, tables
from towline_controlplane.store.database import Transaction
from towline_controlplane.store.log_archives import DueLog
from towline_controlplane.store.logs import LogAppend, LogPosition

GRACE = 600.0
LINE = b"1 O- hello\n"


class Logs:
    """The logs of a run of three nodes, written by hand, and their archive."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.blobs = FolderBlobs(folder / "blobs")
        (folder / "spool").mkdir(exist_ok=True)
        self.archive = LogArchive(rig.database, self.blobs, folder / "spool")
        self.loop = LogArchiving(rig.database, self.archive, GRACE)
        self.run_id = ""
        self.agent: FakeAgent | None = None
        self.offers: dict[str, StepOffer] = {}
        self.written: dict[str, bytes] = {}

    async def begin(self, nodes: Sequence[str] = ("a", "b", "c")) -> None:
        self.run_id = (await self.rig.start(nodes)).id
        self.agent = await self.rig.agent()
        self.offers = {offer.step.node_id: offer for offer in await self.agent.pull(len(nodes))}
        for offer in self.offers.values():
            await self.agent.start(offer)

    async def write(self, node_id: str, data: bytes, *, final: bool = False) -> None:
        before = self.written.get(node_id, b"")
        append = LogAppend(self.run_id, node_id, 1, len(before), data, final)
        await self.rig.database.write(lambda tx: logs.append_many(tx, [append]))
        self.written[node_id] = before + data

    async def end(self, node_id: str, data: bytes | None = None) -> None:
        assert self.agent is not None
        said = self.written.get(node_id, b"") if data is None else data
        usage = Usage(log_bytes=len(said), log_digest=hashlib.sha256(said).hexdigest())
        await self.agent.report(self.offers[node_id], replace(succeeded(node_id), usage=usage))

    async def read(self, node_id: str | None = None, limit: int = 10**9) -> list[tuple[LogPosition, str, bytes]]:
        """Reads by looks of a limited size; returns each chunk with the cursor behind it."""
        return await self.read_from(None, node_id, limit)

    async def read_from(
        self, position: LogPosition | None, node_id: str | None = None, limit: int = 10**9
    ) -> list[tuple[LogPosition, str, bytes]]:
        found: list[tuple[LogPosition, str, bytes]] = []
        while True:
            look = await self.rig.database.read(
                lambda tx, position=position: log_reader.look(tx, self.run_id, node_id, position, limit)
            )
            chunks = await log_reader.read(self.archive, look, limit)
            if not chunks:
                return found
            for chunk in chunks:
                position = chunk.position(len(chunk.data))
                found.append((position, chunk.node_id, chunk.data))

    async def rows(self) -> int:
        def count(tx: Transaction) -> int:
            return len(tx.connection.execute(tables.log_chunks.select()).all())

        return await self.rig.database.read(count)

    async def statuses(self) -> dict[str, LogStatus]:
        def read(tx: Transaction) -> dict[str, LogStatus]:
            attempts = runs.load_all_attempts(tx, [(self.run_id, node_id) for node_id in self.offers])
            return dict(zip([each.node_id for each in attempts], statuses(tx, self.run_id, attempts), strict=True))

        return await self.rig.database.read(read)


@pytest.fixture
def written(tmp_path: Path, play: Callable[[Scenario], None]) -> Callable[[Callable[[Logs], Awaitable[None]]], None]:
    def run(scenario: Callable[[Logs], Awaitable[None]]) -> None:
        async def on_rig(rig: Rig) -> None:
            of_run = Logs(rig, tmp_path)
            await of_run.begin()
            await scenario(of_run)

        play(on_rig)

    return run


Written = Callable[[Callable[[Logs], Awaitable[None]]], None]


def test_reading_is_the_same_before_and_after_whatever_is_archived(written: Written) -> None:
    async def scenario(of: Logs) -> None:
        for number in range(12):
            for node_id in "abc":
                await of.write(node_id, f"{number} O- {node_id}{number}\n".encode() * (number + 1))
        before, of_b = await of.read(), await of.read("b")
        assert [node_id for _, node_id, _ in before] == list("abc") * 12
        for node_id in "bca":
            await of.write(node_id, b"", final=True)
            assert await of.loop.tick() == 1
            for limit in (1, 50, 10**9):
                assert await of.read(limit=limit) == before
            assert await of.read("b") == of_b
        for number, (position, node_id, data) in enumerate(before):
            assert await of.read_from(position) == before[number + 1 :]
            part = await of.read_from(LogPosition(position.arrival, 3))
            assert part == [(position, node_id, data[3:]), *before[number + 1 :]]
        assert await of.rows() == 0
        assert await of.loop.tick() == 0

    written(scenario)


def test_more_objects_than_one_look_takes_are_read_in_order(
    play: Callable[[Scenario], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "_LOOK_AHEAD", 2)

    async def scenario(rig: Rig) -> None:
        of = Logs(rig, tmp_path)
        nodes = [f"n{number}" for number in range(7)]
        await of.begin(nodes)
        for count in (1, 2):
            for node_id in nodes:
                await of.write(node_id, LINE * count, final=count == 2)
        before = await of.read()
        assert await of.loop.tick() == 7
        for limit in (1, 30, 10**9):
            assert await of.read(limit=limit) == before

    play(scenario)


def test_an_object_is_the_log_and_any_tool_unpacks_it(written: Written, tmp_path: Path) -> None:
    async def scenario(of: Logs) -> None:
        await of.write("a", LINE)
        await of.write("a", b"2 E- and more\n", final=True)
        await of.loop.tick()

    written(scenario)
    (object_file,) = (path for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    assert gzip.decompress(object_file.read_bytes()) == LINE + b"2 E- and more\n"
    assert not list((tmp_path / "spool").iterdir())


def test_a_log_that_is_whole_is_compared_with_what_its_agent_said(written: Written) -> None:
    async def scenario(of: Logs) -> None:
        for node_id in "abc":
            await of.write(node_id, LINE, final=True)
        await of.end("a")
        await of.end("b", b"9 O- other\n")
        await of.loop.tick()
        found = await of.statuses()
        assert [found[node_id].condition for node_id in "abc"] == [
            LogCondition.COMPLETE,
            LogCondition.MISMATCHED,
            LogCondition.GROWING,
        ]
        assert [found[node_id].verified for node_id in "abc"] == [True, False, False]
        assert all(status.archived for status in found.values())

    written(scenario)


def test_a_log_whose_rest_does_not_come_is_archived_as_it_is_and_anew_when_it_comes(written: Written) -> None:
    async def scenario(of: Logs) -> None:
        await of.write("a", LINE)
        await of.end("a", LINE + LINE)
        assert await of.loop.tick() == 0
        of.rig.clock.advance(GRACE + 1)
        assert await of.loop.tick() == 1
        status = (await of.statuses())["a"]
        assert (status.condition, status.missing) == (LogCondition.INCOMPLETE, (11, 22))
        before = await of.read("a")
        await of.write("a", LINE, final=True)
        assert [data for _, _, data in await of.read("a")] == [LINE, LINE]
        assert await of.loop.tick() == 1
        assert [data for _, _, data in await of.read_from(before[-1][0], "a")] == [LINE]
        assert [data for _, _, data in await of.read("a")] == [LINE, LINE]
        status = (await of.statuses())["a"]
        assert (status.condition, status.verified, status.archived) == (LogCondition.COMPLETE, True, True)
        assert await of.rows() == 0

    written(scenario)


def test_bytes_that_come_while_a_log_is_packed_are_kept(written: Written) -> None:
    async def scenario(of: Logs) -> None:
        await of.write("a", LINE)
        await of.end("a", LINE + LINE)
        of.rig.clock.advance(GRACE + 1)
        put = of.blobs.put_file

        async def put_late(path: Path, digest: str) -> None:
            await of.write("a", LINE, final=True)
            await put(path, digest)

        of.blobs.put_file = put_late  # type: ignore[method-assign]
        assert await of.loop.archive.store((await _due(of))[0])
        of.blobs.put_file = put  # type: ignore[method-assign]
        assert [data for _, _, data in await of.read("a")] == [LINE, LINE]
        assert await of.rows() == 1

    written(scenario)


async def _due(of: Logs) -> list[DueLog]:
    def claim(tx: Transaction) -> list[DueLog]:
        return log_archives.claim_due(tx, tx.now, tx.now - 1, 100)

    return await of.rig.database.write(claim)


def test_of_two_who_archive_the_same_log_one_does(written: Written) -> None:
    async def scenario(of: Logs) -> None:
        await of.write("a", LINE, final=True)
        (one,), (two,) = await _due(of), await _due(of)
        assert sorted(await asyncio.gather(of.archive.store(one), of.archive.store(two))) == [False, True]
        assert [data for _, _, data in await of.read("a")] == [LINE]

    written(scenario)


def test_who_claims_gets_what_nobody_else_has(written: Written) -> None:
    async def scenario(of: Logs) -> None:
        for node_id in "abc":
            await of.write(node_id, LINE, final=True)
        claims = await asyncio.gather(of.loop.tick(), of.loop.tick())
        assert sum(claims) == 3

    written(scenario)


def test_a_store_that_is_away_keeps_the_chunks_and_they_are_archived_later(written: Written) -> None:
    async def scenario(of: Logs) -> None:
        await of.write("a", LINE, final=True)
        put = of.blobs.put_file

        async def away(path: Path, digest: str) -> None:
            raise Unavailable("the store is away")

        of.blobs.put_file = away  # type: ignore[method-assign]
        assert await of.loop.tick() == 0
        of.blobs.put_file = put  # type: ignore[method-assign]
        assert [data for _, _, data in await of.read("a")] == [LINE]
        of.rig.clock.advance(121)
        assert await of.loop.tick() == 1
        assert [data for _, _, data in await of.read("a")] == [LINE]

    written(scenario)


def test_one_log_that_cannot_be_archived_keeps_no_other_waiting(written: Written) -> None:
    async def scenario(of: Logs) -> None:
        for node_id in "abc":
            await of.write(node_id, LINE + node_id.encode(), final=True)
        put = of.blobs.put_file

        async def sometimes(path: Path, digest: str) -> None:
            if gzip.decompress(await asyncio.to_thread(path.read_bytes)).endswith(b"b"):
                raise RuntimeError("as told")
            await put(path, digest)

        of.blobs.put_file = sometimes  # type: ignore[method-assign]
        assert await of.loop.tick() == 2
        assert await of.rows() == 1

    written(scenario)


def test_an_object_that_is_missing_is_said_and_not_skipped(written: Written, tmp_path: Path) -> None:
    async def scenario(of: Logs) -> None:
        await of.write("a", LINE, final=True)
        await of.loop.tick()
        for path in await asyncio.to_thread(lambda: list((tmp_path / "blobs").rglob("*"))):
            if len(path.name) == 64:
                path.unlink()
        with pytest.raises(NotFound):
            await of.read("a")

    written(scenario)


def test_an_object_stays_as_long_as_its_run(written: Written, tmp_path: Path) -> None:
    def objects() -> int:
        return len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()])

    async def scenario(of: Logs) -> None:
        await of.write("a", LINE, final=True)
        for node_id in "abc":
            await of.end(node_id)
        await of.loop.tick()
        retention = Retention(of.rig.database, of.blobs, 30, 24)
        of.rig.clock.advance(2 * 86_400)
        await retention.tick()
        assert await asyncio.to_thread(objects) == 1
        of.rig.clock.advance(31 * 86_400)
        await retention.tick()
        of.rig.clock.advance(2 * 86_400)
        await retention.tick()
        assert await asyncio.to_thread(objects) == 0

    written(scenario)
