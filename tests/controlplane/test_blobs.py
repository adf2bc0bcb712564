"""What every blob store guarantees."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from towline_controlplane.blobs import Blobs, FolderBlobs
from towline_controlplane.errors import InvalidArgument, LimitExceeded, NotFound, Unavailable

DATA = b"some bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()

STORES: dict[str, Callable[[Path], Blobs]] = {"folder": lambda folder: FolderBlobs(folder / "blobs")}


@pytest.fixture(params=sorted(STORES))
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return STORES[request.param](tmp_path)


def test_bytes_are_found_under_their_digest(blobs: Blobs) -> None:
    async def scenario() -> None:
        assert await blobs.put_bytes(DATA) == DIGEST
        assert await blobs.put_bytes(DATA) == DIGEST
        assert await blobs.exists(DIGEST)
        assert await blobs.read(DIGEST, len(DATA)) == DATA
        assert b"".join([chunk async for chunk in blobs.open(DIGEST, 5)]) == DATA[5:]

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
        with pytest.raises(NotFound):
            await blobs.read(DIGEST, 100)
        await blobs.put_bytes(DATA)
        assert await blobs.read(DIGEST, 100) == DATA

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", DIGEST.upper(), f"{DIGEST}0"])
def test_only_digests_name_blobs(blobs: Blobs, name: str) -> None:
    for use in (blobs.read(name, 100), blobs.delete(name), blobs.exists(name)):
        with pytest.raises(InvalidArgument):
            asyncio.run(use)


def test_a_damaged_file_is_not_handed_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        blobs = FolderBlobs(tmp_path)
        await blobs.put_bytes(DATA)
        (tmp_path / DIGEST[:2] / DIGEST).write_bytes(b"SOME BYTES")
        with pytest.raises(Unavailable, match="damaged"):
            await blobs.read(DIGEST, 100)

    asyncio.run(scenario())


def test_what_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    async def scenario() -> None:
        blobs = FolderBlobs(tmp_path)
        (tmp_path / DIGEST[:2]).write_bytes(b"in the way")
        with pytest.raises(Unavailable):
            await blobs.put_bytes(DATA)
        with pytest.raises(Unavailable):
            await blobs.delete(DIGEST)

    asyncio.run(scenario())
