"""Content-addressed blobs: plugin bundles and large outputs under the SHA-256 of their bytes.

A blob is visible only once it is whole, verified and on disk; it never changes (I22). Refuses names that are not
digests, so no request can name a path.
"""

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from towline_controlplane.errors import InvalidArgument, LimitExceeded, NotFound, Unavailable

CHUNK_BYTES: Final = 256 * 1024
DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Blobs(Protocol):
    """Keeps blobs by digest."""

    async def put_file(self, path: Path, digest: str) -> None:
        """Stores a copy of the file, durably, if its bytes have this digest; raises ValueError otherwise."""
        ...

    async def put_bytes(self, data: bytes) -> str:
        """Stores the bytes, durably, and returns their digest; raises Unavailable."""
        ...

    def open(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Yields the bytes of a blob from `offset` on in chunks of at most 256 KiB; raises NotFound."""
        ...

    async def read(self, digest: str, limit: int) -> bytes:
        """Returns a whole blob, verified; raises NotFound, LimitExceeded beyond `limit` bytes, or Unavailable."""
        ...

    async def delete(self, digest: str) -> None:
        """Removes a blob; one that is not there is as good as removed. Raises Unavailable."""
        ...

    async def exists(self, digest: str) -> bool:
        """Tells whether the blob can be opened."""
        ...


def digest_of(data: bytes) -> str:
    """Returns the digest under which the bytes are stored."""
    return hashlib.sha256(data).hexdigest()


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

    async def put_bytes(self, data: bytes) -> str:
        """Stores the bytes, durably, and returns their digest; raises Unavailable."""
        return await asyncio.to_thread(self._put_bytes, data)

    async def open(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Yields the bytes of a blob from `offset` on in chunks of at most 256 KiB; raises NotFound."""
        path = self._path(digest)
        if offset < 0:
            raise InvalidArgument.of("offset", "must not be negative")
        try:
            source = path.open("rb")
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}") from None
        with source:
            source.seek(offset)
            while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
                yield chunk

    async def read(self, digest: str, limit: int) -> bytes:
        """Returns a whole blob, verified; raises NotFound, LimitExceeded beyond `limit` bytes, or Unavailable."""
        return await asyncio.to_thread(_read_verified, self._path(digest), digest, limit)

    async def delete(self, digest: str) -> None:
        """Removes a blob; one that is not there is as good as removed. Raises Unavailable."""
        with _unavailable_on_error(digest):
            await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

    async def exists(self, digest: str) -> bool:
        """Tells whether the blob can be opened."""
        return self._path(digest).exists()

    def _path(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise InvalidArgument.of("digest", "must be a SHA-256 in lower-case hex")
        return self._folder / digest[:2] / digest

    def _put_bytes(self, data: bytes) -> str:
        digest = digest_of(data)
        target = self._path(digest)
        with _unavailable_on_error(digest):
            if not target.exists():
                _write_durably(target, lambda sink: sink.write(data))
        return digest


def _copy_verified(source: Path, target: Path, digest: str) -> None:
    def copy(sink: BinaryIO) -> None:
        with source.open("rb") as stream:
            if _copy_hashing(stream, sink) != digest:
                raise ValueError(f"{source.name} does not have the digest {digest}")

    _write_durably(target, copy)


def _read_verified(path: Path, digest: str, limit: int) -> bytes:
    with _unavailable_on_error(digest):
        try:
            with path.open("rb") as source:
                data = source.read(limit + 1)
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}") from None
    if len(data) > limit:
        raise LimitExceeded(f"the blob {digest} is larger than {limit} bytes")
    if digest_of(data) != digest:
        raise Unavailable(f"the blob {digest} is damaged")
    return data


@contextmanager
def _unavailable_on_error(digest: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the blob {digest} cannot be used: {error.strerror}") from error


def _write_durably(target: Path, write: Callable[[BinaryIO], object]) -> None:
    """Makes a file appear whole and on disk, or not at all."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".incoming-")
    try:
        with os.fdopen(handle, "wb") as sink:
            write(sink)
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
