"""Blobs in a bucket of a store with the S3 protocol, MinIO for example.

Blocking calls run on threads of their own, so many at once at most. A blob is hashed on its way through a file of the
spool folder before its first byte is sent: what does not have its digest never gets its name. A read that breaks goes
on where it was.
"""

import asyncio
import hashlib
import io
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, closing
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from towline_controlplane.blobs import (
    CHUNK_BYTES,
    StoredBlob,
    check_digest,
    check_range,
    digest_of,
    spooled,
    unavailable_on_error,
    verified,
)
from towline_controlplane.call_threads import CallThreads
from towline_controlplane.errors import LimitExceeded, NotFound, Unavailable
from towline_controlplane.s3_bucket import S3Bucket, S3Options, S3Reader

_TRIES: Final = 3
"""How often a read without progress is begun, and bytes that arrived damaged are sent."""
_PAUSE_SECONDS: Final = 0.2

T = TypeVar("T")


class S3Blobs:
    """Blobs as objects of one bucket, each under its digest; `spool_folder` holds streams until they are whole."""

    def __init__(self, options: S3Options, spool_folder: Path) -> None:
        self._bucket = S3Bucket(options)
        self._spool_folder = spool_folder
        self._threads = CallThreads(options.connections, "s3")

    async def put_file(self, path: Path, digest: str) -> None:
        """Stores a copy of the file, durably, if its bytes have this digest; raises ValueError if not, Unavailable."""
        check_digest(digest)
        await self._call(lambda: self._put_file(path, digest))

    async def put_bytes(self, data: bytes) -> str:
        """Stores the bytes, durably, and returns their digest; raises Unavailable."""
        digest = digest_of(data)
        await self._call(lambda: self._put(io.BytesIO(data), StoredBlob(digest, len(data))))
        return digest

    async def put_stream(self, chunks: AsyncIterator[bytes], limit: int) -> StoredBlob:
        """Stores bytes as they come, durably, in bounded memory; raises LimitExceeded beyond `limit`, Unavailable."""
        self._spool_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with spooled(chunks, self._spool_folder, limit) as (path, blob):
            await self._call(lambda: self._put_spooled(path, blob))
            return blob

    async def open(self, digest: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yields `length` bytes of a blob (None: all) from `offset` on, in chunks of at most 256 KiB."""
        check_digest(digest)
        check_range(offset, length)
        pieces = self._pieces(digest, offset, None if length is None else offset + length)
        async for piece in verified(pieces, digest) if offset == 0 and length is None else pieces:
            yield piece

    async def read(self, digest: str, limit: int) -> bytes:
        """Returns a whole blob, verified; raises NotFound, LimitExceeded beyond `limit` bytes, or Unavailable."""
        data = b"".join([piece async for piece in self.open(digest, 0, limit + 1)])
        if len(data) > limit:
            raise LimitExceeded(f"the blob {digest} is larger than {limit} bytes")
        if digest_of(data) != digest:
            raise Unavailable(f"the blob {digest} is damaged")
        return data

    async def size(self, digest: str) -> int:
        """Returns the number of bytes of a blob; raises NotFound or Unavailable."""
        check_digest(digest)
        return await self._call(lambda: self._bucket.size(digest))

    async def delete(self, digest: str) -> None:
        """Removes a blob; one that is not there is as good as removed. Raises Unavailable."""
        check_digest(digest)
        await self._call(lambda: self._bucket.delete(digest))

    async def exists(self, digest: str) -> bool:
        """Tells whether the blob can be opened; raises Unavailable."""
        try:
            await self.size(digest)
        except NotFound:
            return False
        return True

    async def probe(self) -> None:
        """Raises Unavailable if blobs cannot be kept now; makes the bucket if there is none."""
        await self._call(self._bucket.check)

    def close(self) -> None:
        """Takes no more calls, and closes the connections that none of them has."""
        self._threads.shutdown()
        self._bucket.close()

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _pieces(self, digest: str, offset: int, end: int | None) -> AsyncIterator[bytes]:
        position, tries = offset, 0
        while True:
            try:
                async with aclosing(self._read(digest, position, end)) as pieces:
                    async for piece in pieces:
                        position, tries = position + len(piece), 0
                        yield piece
            except (NotFound, Unavailable):
                tries += 1
                if tries >= _TRIES:
                    raise
                await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS * tries))  # noqa: S311 - no secret
            else:
                return

    async def _read(self, digest: str, offset: int, end: int | None) -> AsyncGenerator[bytes]:
        reader = await self._call(lambda: self._bucket.get(digest, offset, end))
        with closing(reader):
            while piece := await self._call(reader.read):
                yield piece

    def _put_file(self, path: Path, digest: str) -> None:
        with unavailable_on_error(digest), path.open("rb") as source:
            found = _hashed(source)
            if found.digest != digest:
                raise ValueError(f"{path.name} does not have the digest {digest}")
            self._put(source, found)

    def _put_spooled(self, path: Path, blob: StoredBlob) -> None:
        with unavailable_on_error(blob.digest), path.open("rb") as source:
            self._put(source, blob)

    def _put(self, source: BinaryIO, blob: StoredBlob) -> None:
        if self._is_stored(blob):
            return
        for _ in range(_TRIES):
            if self._bucket.put(blob.digest, source, blob.size) or self._reads_back(blob):
                return
        self._bucket.delete(blob.digest)
        raise Unavailable(f"the blob {blob.digest} arrived damaged")

    def _is_stored(self, blob: StoredBlob) -> bool:
        try:
            return self._bucket.size(blob.digest) == blob.size
        except NotFound:
            return False

    def _reads_back(self, blob: StoredBlob) -> bool:
        try:
            with closing(self._bucket.get(blob.digest, 0, None)) as reader:
                return _hashed(reader) == blob
        except NotFound:
            return False


def _hashed(source: BinaryIO | S3Reader) -> StoredBlob:
    hashed, size = hashlib.sha256(), 0
    while chunk := source.read() if isinstance(source, S3Reader) else source.read(CHUNK_BYTES):
        hashed.update(chunk)
        size += len(chunk)
    return StoredBlob(hashed.hexdigest(), size)
