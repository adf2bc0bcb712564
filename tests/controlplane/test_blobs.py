"""What every blob store guarantees, a folder or a bucket."""

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, new_bucket

from towline_controlplane.blobs import CHUNK_BYTES, Blobs, FolderBlobs, StoredBlob
from towline_controlplane.errors import InvalidArgument, LimitExceeded, NotFound, Unavailable
from towline_controlplane.s3_blobs import S3Blobs
from towline_controlplane.s3_bucket import S3Options

DATA = b"some bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()
PART_BYTES = 5 << 20


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(blobs: Blobs, digest: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in blobs.open(digest, offset, length)])


@pytest.fixture(params=["folder", "rclone", "moto"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blobs]:
    if request.param == "folder":
        yield FolderBlobs(tmp_path / "blobs")
        return
    server: S3Server = request.getfixturevalue(request.param)
    options = S3Options(server.endpoint, ACCESS_KEY, SECRET_KEY, new_bucket(), part_bytes=PART_BYTES)
    store = S3Blobs(options, tmp_path / "spool")
    asyncio.run(store.probe())
    yield store
    store.close()


def test_bytes_are_found_under_their_digest(blobs: Blobs) -> None:
    async def scenario() -> None:
        assert await blobs.put_bytes(DATA) == DIGEST
        assert await blobs.put_bytes(DATA) == DIGEST
        assert await blobs.exists(DIGEST)
        assert await blobs.size(DIGEST) == len(DATA)
        assert await blobs.read(DIGEST, len(DATA)) == DATA
        await blobs.probe()

    asyncio.run(scenario())


RANGES: list[tuple[int, int | None, bytes]] = [
    (0, None, DATA),
    (5, None, b"bytes"),
    (len(DATA), None, b""),
    (99, None, b""),
    (0, 4, b"some"),
    (5, 2, b"by"),
    (5, 99, b"bytes"),
    (99, 9, b""),
    (5, 0, b""),
]


def test_any_range_can_be_read(blobs: Blobs) -> None:
    async def scenario() -> None:
        await blobs.put_bytes(DATA)
        for offset, length, found in RANGES:
            assert await content(blobs, DIGEST, offset, length) == found, (offset, length)
        for offset, length in ((-1, None), (0, -1)):
            with pytest.raises(InvalidArgument):
                await content(blobs, DIGEST, offset, length)

    asyncio.run(scenario())


def test_a_blob_may_be_empty(blobs: Blobs) -> None:
    async def scenario() -> None:
        blob = await blobs.put_stream(stream(), limit=0)
        assert blob == StoredBlob(digest(b""), 0)
        assert await blobs.put_bytes(b"") == blob.digest
        assert await blobs.read(blob.digest, 0) == await content(blobs, blob.digest) == b""
        assert await blobs.size(blob.digest) == 0

    asyncio.run(scenario())


def test_a_file_is_stored_only_under_its_own_digest(blobs: Blobs, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(DATA)

    async def scenario() -> None:
        with pytest.raises(ValueError, match="digest"):
            await blobs.put_file(file, "0" * 64)
        assert not await blobs.exists("0" * 64)
        await blobs.put_file(file, DIGEST)
        assert await blobs.read(DIGEST, 100) == DATA

    asyncio.run(scenario())


def test_a_large_stream_is_stored_in_parts_and_read_in_chunks(blobs: Blobs, tmp_path: Path) -> None:
    chunks = [os.urandom(1 << 20) for _ in range(12)]
    whole = b"".join(chunks)

    async def scenario() -> None:
        blob = await blobs.put_stream(stream(*chunks), limit=len(whole))
        assert blob == StoredBlob(digest(whole), len(whole))
        found = [chunk async for chunk in blobs.open(blob.digest)]
        assert max(map(len, found)) <= CHUNK_BYTES
        assert digest(b"".join(found)) == blob.digest
        assert await content(blobs, blob.digest, PART_BYTES - 1, 3) == whole[PART_BYTES - 1 : PART_BYTES + 2]

    asyncio.run(scenario())
    assert not list(tmp_path.rglob("*incoming*"))


def test_memory_does_not_grow_with_a_stream(blobs: Blobs) -> None:
    async def zeros() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(1 << 20)

    async def scenario() -> None:
        tracemalloc.start()
        try:
            blob = await blobs.put_stream(zeros(), limit=1 << 30)
            async for _ in blobs.open(blob.digest):
                pass
            assert tracemalloc.get_traced_memory()[1] < 3 * PART_BYTES < blob.size
        finally:
            tracemalloc.stop()

    asyncio.run(scenario())


def test_a_stream_beyond_its_limit_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(LimitExceeded):
            await blobs.put_stream(stream(DATA, DATA), limit=2 * len(DATA) - 1)
        assert not await blobs.exists(digest(2 * DATA))

    asyncio.run(scenario())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_stream_that_breaks_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield DATA
        raise KeyError("the sender is gone")

    async def scenario() -> None:
        with pytest.raises(KeyError):
            await blobs.put_stream(breaking(), limit=100)
        assert not await blobs.exists(DIGEST)

    asyncio.run(scenario())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_more_is_read_than_is_asked_for(blobs: Blobs) -> None:
    async def scenario() -> None:
        await blobs.put_bytes(DATA)
        with pytest.raises(LimitExceeded):
            await blobs.read(DIGEST, len(DATA) - 1)

    asyncio.run(scenario())


def test_a_deleted_blob_is_gone_and_can_come_back(blobs: Blobs) -> None:
    async def scenario() -> None:
        await blobs.delete(DIGEST)
        await blobs.put_bytes(DATA)
        await blobs.delete(DIGEST)
        assert not await blobs.exists(DIGEST)
        for use in (blobs.read(DIGEST, 100), blobs.size(DIGEST), content(blobs, DIGEST), content(blobs, DIGEST, 1, 0)):
            with pytest.raises(NotFound):
                await use
        await blobs.put_bytes(DATA)
        assert await blobs.read(DIGEST, 100) == DATA

    asyncio.run(scenario())


def test_only_digests_name_blobs(blobs: Blobs, tmp_path: Path) -> None:
    async def scenario() -> None:
        for name in ("", "..", "../../etc/passwd", DIGEST.upper(), f"{DIGEST}0"):
            for use in (
                blobs.read(name, 100),
                blobs.delete(name),
                blobs.exists(name),
                blobs.size(name),
                content(blobs, name),
                blobs.put_file(tmp_path / "file", name),
            ):
                with pytest.raises(InvalidArgument):
                    await use

    asyncio.run(scenario())


def test_a_damaged_file_is_not_handed_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        blobs = FolderBlobs(tmp_path)
        await blobs.put_bytes(DATA)
        (tmp_path / DIGEST[:2] / DIGEST).write_bytes(b"SOME BYTES")
        for use in (blobs.read(DIGEST, 100), content(blobs, DIGEST)):
            with pytest.raises(Unavailable, match="damaged"):
                await use

    asyncio.run(scenario())


def test_what_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(DATA)

    async def scenario() -> None:
        blobs = FolderBlobs(tmp_path)
        (tmp_path / DIGEST[:2]).write_bytes(b"in the way")
        for use in (
            blobs.put_bytes(DATA),
            blobs.put_file(file, DIGEST),
            blobs.put_stream(stream(DATA), 100),
            blobs.delete(DIGEST),
        ):
            with pytest.raises(Unavailable):
                await use

    asyncio.run(scenario())


def test_what_a_crash_left_goes_after_a_day(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    left = [tmp_path / ".incoming-1", tmp_path / "ab" / ".incoming-2"]
    fresh = tmp_path / ".incoming-3"
    for path in (*left, fresh):
        path.write_bytes(DATA)
    for path in left:
        os.utime(path, (0, 0))
    FolderBlobs(tmp_path)
    assert [path.exists() for path in (*left, fresh)] == [False, False, True]


def test_a_folder_that_is_gone_is_noticed(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    (tmp_path / "blobs").rmdir()
    with pytest.raises(Unavailable):
        asyncio.run(blobs.probe())
