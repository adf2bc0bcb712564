"""A bucket behind a bad line (F17): what is repeated, what is refused, and what is never said."""

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_http import Fault, FaultyHttp
from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, new_bucket

from towline_controlplane.errors import Unavailable
from towline_controlplane.loops.blob_health import BlobHealth
from towline_controlplane.s3_blobs import S3Blobs
from towline_controlplane.s3_bucket import S3Options

DATA = b"some bytes" * 100_000
DIGEST = hashlib.sha256(DATA).hexdigest()


class Bucket:
    """A bucket, the bad line to it, and how to use it over the line."""

    def __init__(self, line: FaultyHttp, folder: Path) -> None:
        self.line = line
        self.options = S3Options(
            line.endpoint, ACCESS_KEY, SECRET_KEY, new_bucket(), attempts=3, read_seconds=0.5, part_bytes=5 << 20
        )
        self.blobs = S3Blobs(self.options, folder / "spool")
        asyncio.run(self.blobs.probe())


def over(server: S3Server, folder: Path) -> Iterator[Bucket]:
    with FaultyHttp(server.address).running() as line:
        bucket = Bucket(line, folder)
        yield bucket
        bucket.blobs.close()


@pytest.fixture
def bucket(rclone: S3Server, tmp_path: Path) -> Iterator[Bucket]:
    yield from over(rclone, tmp_path)


@pytest.fixture
def careless(moto: S3Server, tmp_path: Path) -> Iterator[Bucket]:
    yield from over(moto, tmp_path)


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.FORGET, Fault.HANG])
def test_a_put_is_repeated(bucket: Bucket, fault: Fault) -> None:
    async def scenario() -> None:
        bucket.line.next("PUT", fault)
        assert await bucket.blobs.put_bytes(DATA) == DIGEST
        assert await bucket.blobs.read(DIGEST, len(DATA)) == DATA

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG, Fault.CUT, Fault.MISSING])
def test_a_read_is_repeated_and_goes_on_where_it_was(bucket: Bucket, fault: Fault) -> None:
    async def scenario() -> None:
        await bucket.blobs.put_bytes(DATA)
        bucket.line.next("GET", fault, fault)
        assert b"".join([chunk async for chunk in bucket.blobs.open(DIGEST)]) == DATA
        bucket.line.next("GET", fault)
        assert b"".join([chunk async for chunk in bucket.blobs.open(DIGEST, 5, 500_000)]) == DATA[5:500_005]

    asyncio.run(scenario())


def test_a_store_that_stays_away_is_unavailable(bucket: Bucket) -> None:
    async def scenario() -> None:
        for method in ("PUT", "GET", "HEAD", "DELETE"):
            bucket.line.next(method, *[Fault.FAIL] * 30)
        for use in (bucket.blobs.put_bytes(DATA), bucket.blobs.delete(DIGEST), bucket.blobs.exists(DIGEST)):
            with pytest.raises(Unavailable):
                await use

    asyncio.run(scenario())


def test_a_part_that_fails_is_sent_again(bucket: Bucket) -> None:
    data = bytes(12 << 20)

    async def scenario() -> None:
        bucket.line.next("PUT", Fault.FAIL, Fault.FAIL)
        digest = await bucket.blobs.put_bytes(data)
        assert await bucket.blobs.read(digest, len(data)) == data

    asyncio.run(scenario())


def test_an_upload_that_fails_for_good_is_taken_back(bucket: Bucket) -> None:
    async def scenario() -> None:
        bucket.line.next("PUT", *[Fault.FAIL] * 3)
        with pytest.raises(Unavailable):
            await bucket.blobs.put_bytes(bytes(12 << 20))
        assert bucket.line.seen[-1] == "DELETE"
        assert not await bucket.blobs.exists(hashlib.sha256(bytes(12 << 20)).hexdigest())

    asyncio.run(scenario())


def test_bytes_that_change_on_their_way_are_refused_by_a_careful_store(bucket: Bucket) -> None:
    async def scenario() -> None:
        bucket.line.next("PUT", *[Fault.CORRUPT] * 4)
        with pytest.raises(Unavailable, match="damaged"):
            await bucket.blobs.put_bytes(DATA)
        assert not await bucket.blobs.exists(DIGEST)
        assert await bucket.blobs.put_bytes(DATA) == DIGEST

    asyncio.run(scenario())


def test_bytes_that_change_on_their_way_are_noticed_with_a_careless_store(careless: Bucket) -> None:
    async def scenario() -> None:
        careless.line.next("PUT", *[Fault.CORRUPT] * 3)
        with pytest.raises(Unavailable, match="damaged"):
            await careless.blobs.put_bytes(DATA)
        assert not await careless.blobs.exists(DIGEST)
        careless.line.next("PUT", Fault.CORRUPT)
        assert await careless.blobs.put_bytes(DATA) == DIGEST
        assert await careless.blobs.read(DIGEST, len(DATA)) == DATA

    asyncio.run(scenario())


def test_a_whole_blob_is_checked_when_it_is_read(bucket: Bucket) -> None:
    async def scenario() -> None:
        await bucket.blobs.put_bytes(DATA)
        bucket.line.next("GET", Fault.DAMAGED)
        with pytest.raises(Unavailable, match="damaged"):
            await bucket.blobs.read(DIGEST, len(DATA))
        bucket.line.next("GET", Fault.DAMAGED)
        taken = bytearray()

        async def take() -> None:
            async for chunk in bucket.blobs.open(DIGEST):
                taken.extend(chunk)

        with pytest.raises(Unavailable, match="damaged"):
            await take()
        assert len(taken) < len(DATA)

    asyncio.run(scenario())


def test_a_blob_that_was_cut_short_is_stored_again(bucket: Bucket, rclone: S3Server) -> None:
    async def scenario() -> None:
        (rclone.objects / bucket.options.bucket / DIGEST).write_bytes(DATA[:-1])
        assert await bucket.blobs.put_bytes(DATA) == DIGEST
        assert await bucket.blobs.read(DIGEST, len(DATA)) == DATA

    asyncio.run(scenario())


@pytest.mark.parametrize("wrong", [{"secret_key": "wrong-secret-of-a-user"}, {"access_key": "nobody"}])
def test_who_signs_wrongly_gets_nothing_and_no_secret_is_said(
    bucket: Bucket, tmp_path: Path, wrong: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> list[str]:
        await bucket.blobs.put_bytes(DATA)
        stranger = S3Blobs(replace(bucket.options, **wrong), tmp_path / "spool")
        said: list[str] = [repr(bucket.options)]
        for use in (
            stranger.put_bytes(b"x"),
            stranger.read(DIGEST, len(DATA)),
            stranger.delete(DIGEST),
            stranger.probe(),
        ):
            with pytest.raises(Unavailable) as refused:
                await use
            said.append(repr(refused.value))
        stranger.close()
        assert await bucket.blobs.exists(DIGEST)
        return said

    with caplog.at_level(logging.DEBUG):
        said = asyncio.run(scenario())
    everything = " ".join([*said, caplog.text])
    for secret in (SECRET_KEY, *wrong.values(), "Signature="):
        assert secret not in everything


def test_health_follows_the_bucket(bucket: Bucket) -> None:
    told: list[bool] = []

    async def tell(serving: bool) -> None:
        told.append(serving)

    async def scenario() -> None:
        health = BlobHealth(bucket.blobs, tell)
        await health.tick()
        bucket.line.next("HEAD", *[Fault.FAIL] * 3)
        await health.tick()
        await health.tick()
        assert told == [True, False, True]

    asyncio.run(scenario())
