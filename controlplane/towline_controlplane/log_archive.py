"""Logs in the blob store: packed once they are final, read by the frame.

An object is verified in the store before its chunks go. Frames and indexes used last are kept at hand, so that a reader
fetches each once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from towline_controlplane.blobs import Blobs, spooled
from towline_controlplane.errors import Unavailable
from towline_controlplane.log_objects import Frame, LogPacker, read_index, unread
from towline_controlplane.store import log_archives, released_blobs
from towline_controlplane.store.database import Database, Transaction
from towline_controlplane.store.log_archives import ArchivedLog, DueLog
from towline_controlplane.store.logs import LogChunk, LogPosition

_ROWS_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 1 << 30
_INDEXES: Final = 1024


@dataclass(slots=True)
class LogArchive:
    """Packs logs into objects and reads them; `spool_folder` holds objects until they are whole."""

    database: Database
    blobs: Blobs
    spool_folder: Path
    frames: int = 32
    """How many frames are kept at hand."""
    _indexes: OrderedDict[str, list[Frame]] = field(default_factory=OrderedDict[str, list[Frame]])
    _unpacked: OrderedDict[tuple[str, int], list[LogChunk]] = field(
        default_factory=OrderedDict[tuple[str, int], list[LogChunk]]
    )

    async def store(self, due: DueLog) -> bool:
        """Puts an object in the place of the chunks of a log; False if somebody else has. Raises Unavailable."""
        packer = LogPacker()
        async with spooled(self._packed(due, packer), self.spool_folder, _MOST_BYTES) as (path, blob):
            if packer.size == 0:
                return False
            await self.database.write(lambda tx: released_blobs.note_use(tx, [blob.digest]))
            await self.blobs.put_file(path, blob.digest)
        archived = ArchivedLog(
            key=due.key,
            size=packer.size,
            chunks=packer.count,
            object_digest=blob.digest,
            object_size=packer.object_size,
            index_size=packer.index_size,
            first_arrival=packer.first_arrival,
            last_arrival=packer.last_arrival,
            content_digest=packer.content_digest,
        )

        def replace(tx: Transaction) -> bool:
            if due.archived is not None:
                released_blobs.note_use(tx, [due.archived.object_digest])
            return log_archives.archive_if_unchanged(tx, due, archived)

        return await self.database.write(replace)

    async def chunks(self, archived: ArchivedLog, after: LogPosition | None) -> AsyncIterator[LogChunk]:
        """Yields what a reader behind `after` has not seen of an archived log; raises NotFound or Unavailable."""
        for frame in await self._index(archived):
            if after is None or frame.last_arrival >= after.arrival:
                for chunk in await self._frame(archived, frame):
                    rest = unread(chunk, after)
                    if rest is not None:
                        yield rest

    async def _packed(self, due: DueLog, packer: LogPacker) -> AsyncIterator[bytes]:
        last = 0
        if due.archived is not None:
            async for chunk in self.chunks(due.archived, None):
                yield await asyncio.to_thread(packer.add, chunk)
            last = due.archived.last_arrival
        while rows := await self.database.read(
            lambda tx, last=last: log_archives.read_rows(tx, due.key, last, _ROWS_BYTES)
        ):
            for chunk in rows:
                yield await asyncio.to_thread(packer.add, chunk)
            last = rows[-1].arrival
        yield packer.finish()

    async def _index(self, archived: ArchivedLog) -> list[Frame]:
        digest = archived.object_digest
        if digest not in self._indexes:
            tail = await self._read(archived, archived.object_size - archived.index_size, archived.index_size)
            with _damage(archived):
                self._indexes[digest] = read_index(tail)
            if len(self._indexes) > _INDEXES:
                self._indexes.popitem(last=False)
        self._indexes.move_to_end(digest)
        return self._indexes[digest]

    async def _frame(self, archived: ArchivedLog, frame: Frame) -> list[LogChunk]:
        key = (archived.object_digest, frame.offset)
        found = self._unpacked.get(key)
        if found is None:
            packed = await self._read(archived, frame.offset, frame.length)
            with _damage(archived):
                found = await asyncio.to_thread(frame.unpack, packed, archived.key)
            self._unpacked[key] = found
            if len(self._unpacked) > self.frames:
                self._unpacked.popitem(last=False)
        return found

    async def _read(self, archived: ArchivedLog, offset: int, length: int) -> bytes:
        return b"".join([piece async for piece in self.blobs.open(archived.object_digest, offset, length)])


@contextmanager
def _damage(archived: ArchivedLog) -> Generator[None]:
    try:
        yield
    except ValueError as error:
        raise Unavailable(f"the log of {archived.key[1]} cannot be read: {error}") from error
