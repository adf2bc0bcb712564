"""Content-addressed blobs: bundles, large outputs and old logs under the SHA-256 of their bytes.

A blob is visible only once it is whole, verified and durable; it never changes (I22). Refuses names that are not
digests, so no request can name a path. Here is the seam and the adapter for a folder; `s3_blobs` has the other one.
"""

import asyncio
import hashlib
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from towline_controlplane.errors import InvalidArgument, LimitExceeded, NotFound, Unavailable

CHUNK_BYTES: Final = 256 * 1024
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NEW_FILE: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY
_INCOMING: Final = ".incoming-"
_STALE_SECONDS: Final = 86_400.0
"""So old is a file that a crash left unfinished."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a stream became."""

    digest: str
    size: int


class Blobs(Protocol):
    """Keeps blobs by digest."""

    async def put_file(self, path: Path, digest: str) -> None:
        """Stores a copy of the file, durably, if its bytes have this digest; raises ValueError if not, Unavailable."""
        ...

    async def put_bytes(self, data: bytes) -> str:
        """Stores the bytes, durably, and returns their digest; raises Unavailable."""
        ...

    async def put_stream(self, chunks: AsyncIterator[bytes], limit: int) -> StoredBlob:
        """Stores bytes as they come, durably, in bounded memory; raises LimitExceeded beyond `limit`, Unavailable.

        Nothing is visible before the last chunk is in, and nothing is left of a stream that breaks.
        """
        ...

    def open(self, digest: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yields `length` bytes of a blob (None: all) from `offset` on, in chunks of at most 256 KiB.

        Raises NotFound, and Unavailable; that instead of the last chunk if a blob was read whole and is damaged.
        """
        ...

    async def size(self, digest: str) -> int:
        """Returns the number of bytes of a blob; raises NotFound or Unavailable."""
        ...

    async def read(self, digest: str, limit: int) -> bytes:
        """Returns a whole blob, verified; raises NotFound, LimitExceeded beyond `limit` bytes, or Unavailable."""
        ...

    async def delete(self, digest: str) -> None:
        """Removes a blob; one that is not there is as good as removed. Raises Unavailable."""
        ...

    async def exists(self, digest: str) -> bool:
        """Tells whether the blob can be opened; raises Unavailable."""
        ...

    async def probe(self) -> None:
        """Raises Unavailable if blobs cannot be kept now."""
        ...


def digest_of(data: bytes) -> str:
    """Returns the digest under which the bytes are stored."""
    return hashlib.sha256(data).hexdigest()


def check_digest(digest: str) -> str:
    """Returns the digest; raises InvalidArgument if it is none."""
    if not DIGEST.fullmatch(digest):
        raise InvalidArgument.of("digest", "must be a SHA-256 in lower-case hex")
    return digest


def check_range(offset: int, length: int | None) -> None:
    """Raises InvalidArgument for a range that no blob has."""
    for name, number in (("offset", offset), ("length", length or 0)):
        if number < 0:
            raise InvalidArgument.of(name, "must not be negative")


async def verified(pieces: AsyncIterator[bytes], digest: str) -> AsyncIterator[bytes]:
    """Yields all pieces of a blob; raises Unavailable instead of the last one unless they have the digest."""
    hashed, held = hashlib.sha256(), b""
    async for piece in pieces:
        if held:
            yield held
        hashed.update(piece)
        held = piece
    if hashed.hexdigest() != digest:
        raise Unavailable(f"the blob {digest} is damaged")
    if held:
        yield held


@asynccontextmanager
async def spooled(chunks: AsyncIterator[bytes], folder: Path, limit: int) -> AsyncGenerator[tuple[Path, StoredBlob]]:
    """Yields a private file of `folder` with all the chunks, on disk, and what they are; it is removed afterwards.

    Raises LimitExceeded beyond `limit` bytes, and Unavailable.
    """
    path = folder / f"{_INCOMING}{secrets.token_hex(16)}"
    hashed, size = hashlib.sha256(), 0
    try:
        with _unavailable_to_spool(), os.fdopen(os.open(path, _NEW_FILE, 0o600), "wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise LimitExceeded(f"there are more than {limit} bytes")
                hashed.update(chunk)
                await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(_flush, file)
        yield path, StoredBlob(hashed.hexdigest(), size)
    finally:
        path.unlink(missing_ok=True)


class FolderBlobs:
    """Blobs as files of a folder, readable by their owner alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(folder)

    async def put_file(self, path: Path, digest: str) -> None:
        """Stores a copy of the file, durably, if its bytes have this digest; raises ValueError if not, Unavailable."""
        target = self._path(digest)
        if not target.exists():
            await asyncio.to_thread(_copy_verified, path, target, digest)

    async def put_bytes(self, data: bytes) -> str:
        """Stores the bytes, durably, and returns their digest; raises Unavailable."""
        return await asyncio.to_thread(self._put_bytes, data)

    async def put_stream(self, chunks: AsyncIterator[bytes], limit: int) -> StoredBlob:
        """Stores bytes as they come, durably, in bounded memory; raises LimitExceeded beyond `limit`, Unavailable."""
        async with spooled(chunks, self._folder, limit) as (path, blob):
            with unavailable_on_error(blob.digest):
                await asyncio.to_thread(_adopt, path, self._path(blob.digest))
            return blob

    async def open(self, digest: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yields `length` bytes of a blob (None: all) from `offset` on, in chunks of at most 256 KiB."""
        path = self._path(digest)
        check_range(offset, length)
        with unavailable_on_error(digest):
            try:
                source = path.open("rb")
            except FileNotFoundError:
                raise NotFound(f"there is no blob {digest}") from None
            with source:
                source.seek(offset)
                pieces = _pieces(source, length)
                async for piece in verified(pieces, digest) if offset == 0 and length is None else pieces:
                    yield piece

    async def size(self, digest: str) -> int:
        """Returns the number of bytes of a blob; raises NotFound or Unavailable."""
        with unavailable_on_error(digest):
            try:
                return self._path(digest).stat().st_size
            except FileNotFoundError:
                raise NotFound(f"there is no blob {digest}") from None

    async def read(self, digest: str, limit: int) -> bytes:
        """Returns a whole blob, verified; raises NotFound, LimitExceeded beyond `limit` bytes, or Unavailable."""
        return await asyncio.to_thread(_read_verified, self._path(digest), digest, limit)

    async def delete(self, digest: str) -> None:
        """Removes a blob; one that is not there is as good as removed. Raises Unavailable."""
        with unavailable_on_error(digest):
            await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

    async def exists(self, digest: str) -> bool:
        """Tells whether the blob can be opened."""
        return self._path(digest).exists()

    async def probe(self) -> None:
        """Raises Unavailable if blobs cannot be kept now."""
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
            raise Unavailable("the folder of the blobs cannot be written")

    def _path(self, digest: str) -> Path:
        return self._folder / check_digest(digest)[:2] / digest

    def _put_bytes(self, data: bytes) -> str:
        digest = digest_of(data)
        target = self._path(digest)
        with unavailable_on_error(digest):
            if not target.exists():
                _write_durably(target, lambda sink: sink.write(data))
        return digest


def _copy_verified(source: Path, target: Path, digest: str) -> None:
    def copy(sink: BinaryIO) -> None:
        with source.open("rb") as stream:
            if _copy_hashing(stream, sink) != digest:
                raise ValueError(f"{source.name} does not have the digest {digest}")

    with unavailable_on_error(digest):
        _write_durably(target, copy)


def _remove_stale(folder: Path) -> None:
    for pattern in (f"{_INCOMING}*", f"*/{_INCOMING}*"):
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _STALE_SECONDS:
                    path.unlink()


def _adopt(source: Path, target: Path) -> None:
    """Gives a file that is on disk its place."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    source.rename(target)
    _sync_folder(target.parent)


async def _pieces(source: BinaryIO, length: int | None) -> AsyncIterator[bytes]:
    left = sys.maxsize if length is None else length
    while left and (piece := await asyncio.to_thread(source.read, min(CHUNK_BYTES, left))):
        left -= len(piece)
        yield piece


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read_verified(path: Path, digest: str, limit: int) -> bytes:
    with unavailable_on_error(digest):
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
def _unavailable_to_spool() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"nothing can be taken in now: {error.strerror}") from error


@contextmanager
def unavailable_on_error(digest: str) -> Generator[None]:
    """Raises Unavailable for an error of the operating system."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the blob {digest} cannot be used: {error.strerror}") from error


def _write_durably(target: Path, write: Callable[[BinaryIO], object]) -> None:
    """Makes a file appear whole and on disk, or not at all."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=_INCOMING)
    try:
        with os.fdopen(handle, "wb") as sink:
            write(sink)
            _flush(sink)
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
