"""The form of an archived log: frames of gzip one after the other, so that any tool unpacks the whole log.

A frame holds whole chunks, each with the arrival that it had in its run: a cursor means the same before and after.
Which chunks are in which frame stands in the comment of a last frame, which is empty; of an object only this one and
the wanted frames are read.
"""

import hashlib
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from towline_controlplane.store.logs import LogChunk, LogKey, LogPosition

FRAME_BYTES: Final = 512 * 1024
_LEVEL: Final = 4
_GZIP: Final = 31
_COMMENTED: Final = b"\x1f\x8b\x08\x10\0\0\0\0\0\xff"
_EMPTY: Final = b"\x03\0" + bytes(8)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a frame lies in the object, where its bytes lie in the log, and its chunks: arrival and length of each."""

    offset: int
    length: int
    start: int
    chunks: Sequence[tuple[int, int]]

    @property
    def last_arrival(self) -> int:
        """The arrival of its last chunk."""
        return self.chunks[-1][0]

    def unpack(self, packed: bytes, key: LogKey) -> list[LogChunk]:
        """Returns the chunks; raises ValueError for bytes that are not this frame."""
        size = sum(length for _, length in self.chunks)
        try:
            data = zlib.decompressobj(_GZIP).decompress(packed, size + 1)
        except zlib.error as error:
            raise ValueError("the frame is damaged") from error
        if len(data) != size:
            raise ValueError("the frame is damaged")
        _, node_id, attempt = key
        found: list[LogChunk] = []
        at = 0
        for arrival, length in self.chunks:
            found.append(LogChunk(arrival, 0, node_id, attempt, self.start + at, data[at : at + length]))
            at += length
        return found


@dataclass(slots=True)
class LogPacker:
    """Makes an object of chunks, fed in their order."""

    first_arrival: int = 0
    last_arrival: int = 0
    size: int = 0
    count: int = 0
    object_size: int = 0
    index_size: int = 0
    _hashed: Any = field(default_factory=hashlib.sha256)
    _frames: list[tuple[int, list[int]]] = field(default_factory=list[tuple[int, list[int]]])
    _waiting: list[LogChunk] = field(default_factory=list[LogChunk])
    _waiting_bytes: int = 0

    @property
    def content_digest(self) -> str:
        """SHA-256 of all that was fed."""
        return self._hashed.hexdigest()

    def add(self, chunk: LogChunk) -> bytes:
        """Returns the bytes of the object that are ready."""
        self.first_arrival = self.first_arrival or chunk.arrival
        self.last_arrival = chunk.arrival
        self.size += len(chunk.data)
        self.count += 1
        self._hashed.update(chunk.data)
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk.data)
        return self._flush() if self._waiting_bytes >= FRAME_BYTES else b""

    def finish(self) -> bytes:
        """Returns the rest of the object."""
        rest = self._flush()
        index = zlib.compress(json.dumps(self._frames, separators=(",", ":")).encode())
        tail = _COMMENTED + b64encode(index) + b"\0" + _EMPTY
        self.index_size = len(tail)
        self.object_size += len(tail)
        return rest + tail

    def _flush(self) -> bytes:
        if not self._waiting:
            return b""
        packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
        packed = packer.compress(b"".join(chunk.data for chunk in self._waiting)) + packer.flush()
        self._frames.append((len(packed), [n for each in self._waiting for n in (each.arrival, len(each.data))]))
        self._waiting, self._waiting_bytes = [], 0
        self.object_size += len(packed)
        return packed


def read_index(tail: bytes) -> list[Frame]:
    """Returns the frames that the last bytes of an object tell of; raises ValueError for others."""
    comment, zero, _ = tail.removeprefix(_COMMENTED).partition(b"\0")
    if not zero or not tail.startswith(_COMMENTED):
        raise ValueError("the object has no index")
    try:
        listed = json.loads(zlib.decompress(b64decode(comment, validate=True)))
    except zlib.error as error:
        raise ValueError("the index is damaged") from error
    frames: list[Frame] = []
    offset = start = 0
    for length, numbers in listed:
        frames.append(Frame(offset, length, start, list(zip(numbers[::2], numbers[1::2], strict=True))))
        offset += length
        start += sum(numbers[1::2])
    return frames


def unread(chunk: LogChunk, after: LogPosition | None) -> LogChunk | None:
    """Returns what a reader behind `after` has not seen of a chunk, None if that is nothing."""
    if after is None or chunk.arrival > after.arrival:
        return chunk
    if chunk.arrival < after.arrival or after.used >= len(chunk.data):
        return None
    used = after.used
    return LogChunk(chunk.arrival, used, chunk.node_id, chunk.attempt, chunk.offset + used, chunk.data[used:])
