"""Content-addressed blobs: plugin bundles under the SHA-256 of their bytes.

A blob is visible only once it is whole, verified and on disk; it never changes (I22). Refuses names that are not
digests, so no request can name a path.
"""

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from towline_controlplane.errors import InvalidArgument, NotFound

CHUNK_BYTES: Final = 256 * 1024
DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Blobs(Protocol):
    """Keeps blobs by digest."""

    async def put_file(self, path: Path, digest: str) -> None:
        """Stores a copy of the file, durably, if its bytes have this digest; raises ValueError otherwise."""
        ...

    def open(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Yields the bytes of a blob from `offset` on in chunks of at most 256 KiB; raises NotFound."""
        ...

    async def exists(self, digest: str) -> bool:
        """Tells whether the blob can be opened."""
        ...


class FolderBlobs:
    """Blobs as files of a folder, readable by their owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put_file(self, path: Path, digest: str) -> None:
        """Stores a copy of the file, durably, if its bytes have this digest; raises ValueError otherwise."""
        target = self._path(digest)
        if not target.exists():
            await asyncio.to_thread(_copy_verified, path, target, digest)

    async def open(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Yields the bytes of a blob from `offset` on in chunks of at most 256 KiB; raises NotFound."""
        path = self._path(digest)
        if offset < 0:
            raise InvalidArgument.of("offset", "must not be negative")
        try:
            source = path.open("rb")
        except FileNotFoundError:
            raise NotFound(f"there is no bundle {digest}") from None
        with source:
            source.seek(offset)
            while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
                yield chunk

    async def exists(self, digest: str) -> bool:
        """Tells whether the blob can be opened."""
        return self._path(digest).exists()

    def _path(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise InvalidArgument.of("digest", "must be a SHA-256 in lower-case hex")
        return self._folder / digest[:2] / digest


def _copy_verified(source: Path, target: Path, digest: str) -> None:
    target.parent.mkdir(mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".incoming-")
    try:
        with os.fdopen(handle, "wb") as sink, source.open("rb") as stream:
            if _copy_hashing(stream, sink) != digest:
                raise ValueError(f"{source.name} does not have the digest {digest}")
            sink.flush()
            os.fsync(sink.fileno())
        Path(temporary).rename(target)
        _sync_folder(target.parent)
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


def _copy_hashing(stream: BinaryIO, sink: BinaryIO) -> str:
    hashed = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        hashed.update(chunk)
        sink.write(chunk)
    return hashed.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
